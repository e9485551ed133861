"""Saves one small random model twice with transformers: DIR/sharded (several shards) and DIR/single.
usage: sharded_model.py DIR"""
import sys

try:
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    print(error)
    sys.exit(77)

config = LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False)
model = LlamaForCausalLM(config)
model.save_pretrained(sys.argv[1] + "/sharded", max_shard_size="150KB")
model.save_pretrained(sys.argv[1] + "/single")
