"""Frequencies, tables and rotations of transformers, for rope_test.cpp: rope_tables.py OUTPUT"""
import sys

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

CASES = {
    "default": (64, dict(rope_type="default", rope_theta=10000.0)),
    "large_theta": (128, dict(rope_type="default", rope_theta=1000000.0)),
    "linear": (32, dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
    "llama3": (128, dict(rope_type="llama3", rope_theta=500000.0, factor=32.0, low_freq_factor=1.0,
                         high_freq_factor=4.0, original_max_position_embeddings=8192)),
    "llama3_small": (16, dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
                              high_freq_factor=4.0, original_max_position_embeddings=64)),
}
LENGTH = 4099

out = {}
torch.manual_seed(0)
for name, (head_dim, rope) in CASES.items():
    config = LlamaConfig(hidden_size=2 * head_dim, num_attention_heads=2, head_dim=head_dim,
                         max_position_embeddings=131072, rope_parameters=dict(rope))
    module = LlamaRotaryEmbedding(config)
    x = torch.randn(2, 3, LENGTH, head_dim)
    cos, sin = module(x, torch.arange(LENGTH)[None])
    out[f"{name}.inv_freq"] = module.inv_freq
    out[f"{name}.cos"] = cos[0, :, : head_dim // 2].contiguous()
    out[f"{name}.sin"] = sin[0, :, : head_dim // 2].contiguous()
    out[f"{name}.x"] = x[:, :, -5:].contiguous()
    out[f"{name}.rotated"] = apply_rotary_pos_emb(x, x, cos, sin)[0][:, :, -5:].contiguous()
torch.save({k: torch.tensor(v.numpy()) for k, v in out.items()}, sys.argv[1])
