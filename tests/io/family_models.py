"""Saves a random 2-layer model of every family with transformers, and what it answers.
usage: family_models.py DIR
DIR/<name>/ is the model (some sharded), DIR/<name>/expected/model.safetensors holds tokens [2, 48] int64 and its
logits [2, 48, vocabulary] in fp32."""
import os
import sys

try:
    import torch
    from safetensors.torch import save_file
    from transformers import (LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config,
                              Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)
except ImportError as error:
    print(error)
    sys.exit(77)

COMMON = dict(vocab_size=200, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
MODELS = {
    "llama": LlamaForCausalLM(LlamaConfig(**COMMON, tie_word_embeddings=False)),
    "llama-tied-llama3-rope": LlamaForCausalLM(LlamaConfig(**COMMON, tie_word_embeddings=True, rope_parameters=LLAMA3)),
    "llama-biases-head-dim": LlamaForCausalLM(LlamaConfig(**COMMON, attention_bias=True, mlp_bias=True, head_dim=32,
                                                          tie_word_embeddings=False)),
    "mistral": MistralForCausalLM(MistralConfig(**COMMON, sliding_window=None, tie_word_embeddings=False)),
    "qwen2": Qwen2ForCausalLM(Qwen2Config(**COMMON, tie_word_embeddings=True)),
    "qwen3": Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=32, tie_word_embeddings=False)),
}
torch.manual_seed(1)
for name, model in MODELS.items():
    for parameter in model.parameters():  # norms and biases too, so that each of them matters
        parameter.data += 0.1 * torch.randn_like(parameter)
    model = model.float().eval()
    directory = os.path.join(sys.argv[1], name)
    model.save_pretrained(directory, max_shard_size="100KB" if "llama" in name else "5GB")
    tokens = torch.randint(0, 200, (2, 48))
    os.makedirs(directory + "/expected")
    with torch.no_grad():
        save_file({"tokens": tokens, "logits": model(tokens).logits.float().contiguous()},
                  directory + "/expected/model.safetensors")
