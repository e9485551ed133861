"""Random 2-layer models of every supported family, and what transformers makes of them.

make_models.py FOLDER writes FOLDER/<case>/ with config.json, model*.safetensors (save_pretrained) and oracle.pt:
weights by name ("weight:<name>"), input ids, fp32 logits and a greedy continuation. All parameters are random, biases
and norms too, so that none can be forgotten.
"""
import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

BASE = dict(vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=256, initializer_range=0.15, attn_implementation="eager",
            bos_token_id=1, eos_token_id=None, pad_token_id=None)


def llama3(**more):
    return dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=32, **more)


CASES = {
    "llama2": LlamaConfig(**BASE, rms_norm_eps=1e-5),
    "llama3_scaled": LlamaConfig(**{**BASE, "num_key_value_heads": 2}, rope_parameters=llama3()),
    "llama_linear_biases": LlamaConfig(**BASE, attention_bias=True, mlp_bias=True,
                                       rope_parameters=dict(rope_type="linear", rope_theta=5000.0, factor=4.0)),
    "smollm2": LlamaConfig(**{**BASE, "num_attention_heads": 6, "num_key_value_heads": 2}, tie_word_embeddings=True,
                           rms_norm_eps=1e-5, rope_parameters=dict(rope_type="default", rope_theta=100000.0)),
    "mistral": MistralConfig(**{**BASE, "num_key_value_heads": 2}, head_dim=20, sliding_window=None),
    "qwen2": Qwen2Config(**{**BASE, "num_key_value_heads": 1}, tie_word_embeddings=True),
    "qwen2_untied": Qwen2Config(**{**BASE, "num_key_value_heads": 2},
                                rope_parameters=dict(rope_type="default", rope_theta=1000000.0)),
    "qwen3": Qwen3Config(**{**BASE, "num_key_value_heads": 2}, head_dim=32, tie_word_embeddings=True),
    "qwen3_biases": Qwen3Config(**{**BASE, "num_key_value_heads": 2}, head_dim=16, attention_bias=True),
}
OLD_SPELLING = {"llama3_scaled", "llama_linear_biases", "qwen2_untied"}  # config.json as transformers 4 wrote it
SHARDED = {"llama3_scaled", "qwen3"}


def to_old_spelling(path):
    with open(path) as f:
        config = json.load(f)
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] != "default":
        if rope["rope_type"] == "linear":
            rope["type"] = rope.pop("rope_type")
        config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    with open(path, "w") as f:
        json.dump(config, f)


def main(folder):
    for number, (name, config) in enumerate(CASES.items()):
        torch.manual_seed(number)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "norm" in key:
                    parameter.uniform_(0.5, 1.5)
                elif key.endswith("bias"):
                    parameter.normal_(0, 0.3)
        path = os.path.join(folder, name)
        model.save_pretrained(path, max_shard_size="40KB" if name in SHARDED else "1GB")
        if name in OLD_SPELLING:
            to_old_spelling(os.path.join(path, "config.json"))
        ids = torch.randint(0, config.vocab_size, (2, 61))
        out = {"ids": ids}
        with torch.no_grad():
            out["logits"] = model(ids).logits
            out["greedy"] = model.generate(ids[:1, :8], max_new_tokens=40, do_sample=False)
        tied = config.tie_word_embeddings
        for key, value in model.state_dict().items():
            if not (tied and key == "lm_head.weight"):
                out["weight:" + key] = value.clone()
        torch.save(out, os.path.join(path, "oracle.pt"))


if __name__ == "__main__":
    main(sys.argv[1])
