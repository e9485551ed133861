"""compressed_tensors_client.py CASES: every folder in CASES holds `ct` (a compressed-tensors directory), satin.safetensors (the weights that Satin multiplies
with, `tokens` [1, T] and Satin's `logits` of them) and activations.json (module -> "int8" or "float8"). transformers opens `ct`: its weights are Satin's bit for
bit, and its logits those of a dense model with these weights whose inputs are quantized here, in its own way (a token's largest value / 127.5, e4m3: / 448).
Satin's logits are those of such a model too, in fp32 and Satin's way (/ 127)."""
import copy
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM


def quantize_inputs(kinds, top, low, model):
    """Before each of these modules, every token (last dimension) is rounded to its own scale."""

    def hook(kind):
        def quantize(module, args):
            x = args[0]
            largest = x.abs().amax(-1, keepdim=True)
            if kind == "int8":
                scale = largest / top
                return (x / scale).clamp(low, 127).round() * scale
            scale = largest / 448
            return ((x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).to(x.dtype) * scale,)

        return quantize

    for name, kind in kinds.items():
        model.get_submodule(name).register_forward_pre_hook(hook(kind))
    return model


with torch.no_grad():
    for case in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        satin, kinds = load_file(case / "satin.safetensors"), json.loads((case / "activations.json").read_text())
        tokens, logits = satin.pop("tokens"), satin.pop("logits")
        packed = AutoModelForCausalLM.from_pretrained(case / "ct", dtype="auto")
        found = packed(tokens).logits  # unpacks
        parameters = dict(packed.named_parameters(remove_duplicate=False))
        for name, want in satin.items():
            assert parameters[name].dtype == want.dtype and torch.equal(parameters[name], want), name
        told = {name: module.quantization_scheme.input_activations for name, module in packed.named_modules() if getattr(module, "quantization_scheme", None)}
        assert {name: {"int": "int8", "float": "float8"}[inputs.type] for name, inputs in told.items() if inputs} == kinds, told

        config = AutoConfig.from_pretrained(case / "ct")
        del config.quantization_config
        dense = AutoModelForCausalLM.from_config(config, dtype=packed.dtype).eval()
        dense.load_state_dict(satin, strict=not config.tie_word_embeddings)
        wide = copy.deepcopy(dense).float()
        want = quantize_inputs(kinds, 127.5, -128, dense)(tokens).logits
        assert torch.equal(found, want), (case.name, (found - want).abs().max())
        want = quantize_inputs(kinds, 127, -127, wide)(tokens).logits
        assert (logits - want).abs().max() < 1e-4, (case.name, (logits - want).abs().max())
        client = (found.float().log_softmax(-1) - logits.log_softmax(-1)).abs().max()
        print(f"= {case.name}: {len(told)} modules, {len(kinds)} with 8-bit inputs, log-probabilities within {client:.1e} of Satin's")
