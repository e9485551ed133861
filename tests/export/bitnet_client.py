"""bitnet_client.py CASES: every folder in CASES holds `bitnet` (an exported directory) and satin.safetensors (the weights that Satin multiplies with, `tokens`
[1, T] and Satin's `logits` of them). The file unpacked here by two bits, and what transformers makes of it, are Satin's weights bit for bit; transformers'
logits are those of a model that computes as BitNet's clients do (8-bit inputs, levels, one scale), Satin's those of its own rounding in fp32."""
import copy
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM


def of_client(module, x):
    wide = x.float()
    scale = 127 / wide.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    return torch.nn.functional.linear(((wide * scale).round().clamp(-128, 127) / scale).to(x.dtype), module.levels) * module.scale


def of_satin(module, x):
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-5) / 127
    return torch.nn.functional.linear((x / scale).round().clamp(-127, 127) * scale, module.levels * module.scale)


def computing(model, packed, forward):
    """The dense model with these linears in place of its own."""
    for name, (levels, scale) in packed.items():
        module = model.get_submodule(name)
        module.levels, module.scale = levels.to(module.weight.dtype), scale.to(module.weight.dtype)
        module.forward = forward.__get__(module)
    return model


with torch.no_grad():
    for case in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        satin, stored = load_file(case / "satin.safetensors"), load_file(case / "bitnet/model.safetensors")
        tokens, logits = satin.pop("tokens"), satin.pop("logits")
        packed = {}
        for name in stored:
            if not name.endswith(".weight_scale"):
                continue
            module, (scale,) = name.removesuffix(".weight_scale"), (stored[name],)
            levels = torch.cat([(stored[module + ".weight"] >> 2 * i) & 3 for i in range(4)]).to(torch.int8) - 1
            assert levels.abs().max() <= 1 and stored[module + ".weight"].dtype == torch.uint8 and scale.shape == (1,)
            packed[module] = levels, scale
            want = satin[module + ".weight"]
            assert torch.equal(levels.to(want.dtype) * scale, want) and scale.dtype == want.dtype, module

        client = AutoModelForCausalLM.from_pretrained(case / "bitnet", dtype="auto")
        linears = {name: module for name, module in client.named_modules() if type(module).__name__ == "AutoBitLinear"}
        assert linears.keys() == packed.keys(), linears.keys() ^ packed.keys()
        for name, module in linears.items():
            want = satin[name + ".weight"]
            found = module.weight * module.weight_scale
            assert found.dtype == want.dtype and torch.equal(found, want), name

        config = AutoConfig.from_pretrained(case / "bitnet")
        del config.quantization_config
        dense = AutoModelForCausalLM.from_config(config, dtype=client.dtype).eval()
        dense.load_state_dict(satin, strict=not config.tie_word_embeddings)
        wide = copy.deepcopy(dense).float()
        found, want = client(tokens).logits, computing(dense, packed, of_client)(tokens).logits
        assert torch.equal(found, want), (case.name, (found - want).abs().max())
        want = computing(wide, packed, of_satin)(tokens).logits
        assert (logits - want).abs().max() < 1e-4, (case.name, (logits - want).abs().max())
        worst = (found.float().log_softmax(-1) - logits.log_softmax(-1)).abs().max()
        print(f"= {case.name}: {len(packed)} modules, log-probabilities within {worst:.1e} of Satin's")
