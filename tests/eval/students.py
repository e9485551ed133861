"""Students for the comparisons: students.py FOLDER [TEACHER]

Writes FOLDER/student: TEACHER with its linear layers rounded to 3 bits a row, in fp32. Without TEACHER also
FOLDER/teacher, a small random Llama with an untied head.
"""
import json
import os
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file

folder = sys.argv[1]
teacher = sys.argv[2] if len(sys.argv) > 2 else folder + "/teacher"
if len(sys.argv) == 2:
    V, H, I, HEADS, GROUPS, D, LAYERS = 97, 48, 80, 4, 2, 12, 3
    config = dict(model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=V, hidden_size=H, intermediate_size=I,
                  num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=GROUPS, head_dim=D, rms_norm_eps=1e-5,
                  max_position_embeddings=256, hidden_act="silu", tie_word_embeddings=False, bos_token_id=1, eos_token_id=None,
                  rope_theta=10000.0, torch_dtype="float32")
    shapes = {"self_attn.q_proj": (HEADS * D, H), "self_attn.k_proj": (GROUPS * D, H), "self_attn.v_proj": (GROUPS * D, H),
              "self_attn.o_proj": (H, HEADS * D), "mlp.gate_proj": (I, H), "mlp.up_proj": (I, H), "mlp.down_proj": (H, I)}
    torch.manual_seed(1)
    weights = {"model.embed_tokens.weight": torch.randn(V, H) * 0.25, "lm_head.weight": torch.randn(V, H) * 0.25, "model.norm.weight": torch.ones(H)}
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            weights[f"model.layers.{layer}.{name}.weight"] = torch.randn(shape) * 0.25
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = torch.ones(H)
    os.mkdir(teacher)
    json.dump(config, open(teacher + "/config.json", "w"))
    save_file(weights, teacher + "/model.safetensors", {"format": "pt"})
os.mkdir(folder + "/student")
shutil.copy(teacher + "/config.json", folder + "/student")
weights = {name: value.float() for name, value in load_file(teacher + "/model.safetensors").items()}
for name, value in weights.items():
    if name.endswith("_proj.weight"):
        scale = value.abs().amax(1, keepdim=True) / 3
        value.copy_((value / scale).round().clamp(-4, 3) * scale)
save_file(weights, folder + "/student/model.safetensors", {"format": "pt"})
