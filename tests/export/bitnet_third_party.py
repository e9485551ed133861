"""bitnet_third_party.py OUT: BitNet directories packed by transformers' own function, in both conventions of weight_scale, each with `expected`: the weights
[out, in] in fp32, `tokens` [1, T] and the logits that transformers computes from the directory."""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.bitnet import pack_weights

torch.manual_seed(0)
shape = dict(vocab_size=96, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
with torch.no_grad():
    for name, linear in (("divides", {}), ("divides-by-powers", {"linear_class": "bitlinear"}), ("multiplies", {"linear_class": "autobitlinear", "quantization_mode": "offline"})):
        out = pathlib.Path(sys.argv[1]) / name
        model = LlamaForCausalLM(LlamaConfig(**shape))
        stored, expected = {}, {}
        for key, value in model.state_dict().items():
            if not key.endswith("_proj.weight"):
                stored[key] = expected[key] = (torch.randn_like(value) * 0.1).contiguous()
                continue
            levels = torch.randint(-1, 2, value.shape).float()
            scale = torch.rand(1) * 0.1 + 0.02
            if name == "divides-by-powers":
                scale = torch.tensor([2.0 ** torch.randint(-6, -2, ()).item()])
            expected[key] = levels * scale if name == "multiplies" else levels / (1 / scale)
            stored[key + "_scale"] = scale if name == "multiplies" else 1 / scale
            stored[key] = pack_weights(levels.clone())
        out.mkdir()
        save_file(stored, out / "model.safetensors", metadata={"format": "pt"})
        config = model.config.to_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": "float32", "quantization_config": {"quant_method": "bitnet", **linear}}
        (out / "config.json").write_text(json.dumps(config))
        tokens = torch.arange(30)[None]
        logits = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)(tokens).logits
        (out / "expected").mkdir()
        save_file(expected | {"tokens": tokens, "logits": logits}, out / "expected/model.safetensors")
