"""compressed_tensors_third_party.py OUT: directories that the compressed-tensors library quantizes and writes itself, each with `expected`: the weights that
the library unpacks from it."""
import pathlib
import sys

import torch
from compressed_tensors.compressors import ModelCompressor, compress_module, decompress_module
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

INPUTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}


def weights(bits, group=None, symmetric=True, **more):
    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    return {"num_bits": bits, "type": "int", "symmetric": symmetric, **strategy, **more}


def linears(*args, **group):
    return {"group_0": {"targets": ["Linear"], "weights": args[0], **group}}


CASES = {
    "w4-g128": (linears(weights(4, 128)), None),
    "w4-g64-asymmetric": (linears(weights(4, 64, False)), None),
    "w3-channel-asymmetric": (linears(weights(3, None, False)), None),
    "w8-channel": (linears(weights(8)), None),
    "w4-weight-order": (linears(weights(4, 64, actorder="weight")), None),
    "w8a8": (linears(weights(8), input_activations=INPUTS), None),
    "w8a8-asymmetric-groups": (linears(weights(8, 64, False), input_activations=INPUTS), None),
    "w4a8-bytes": (linears(weights(4), input_activations=INPUTS), None),
    "naive": (linears(weights(8)), "naive-quantized"),
    "mixed": (
        {
            "group_0": {"targets": ["Linear"], "weights": weights(4, 64)},
            "group_1": {"targets": ["re:.*layers.1.*"], "weights": weights(3, 128, False)},
            "group_2": {"targets": ["re:.*[a-z]+.1.mlp"], "weights": weights(8), "input_activations": INPUTS},
        },
        None,
    ),
}


def quantize(module):
    """Scales and zero points of the extremes, as an observer would."""
    args, weight = module.quantization_scheme.weights, module.weight
    groups = weight.unflatten(1, (-1, args.group_size or weight.shape[1]))
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
    module.weight_scale.copy_(scale)
    module.weight_zero_point.copy_(zero)


torch.manual_seed(0)
config = LlamaConfig(vocab_size=96, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
with torch.no_grad():
    for name, (groups, form) in CASES.items():
        out = pathlib.Path(sys.argv[1]) / name
        model = LlamaForCausalLM(config).to(torch.bfloat16)
        for value in model.parameters():
            value.copy_(torch.randn_like(value) * 0.1)
        apply_quantization_config(model, QuantizationConfig(config_groups=groups, ignore=["lm_head"], quantization_status="initialized"))
        quantized = [module for module in model.modules() if hasattr(module, "quantization_scheme")]
        for module in quantized:
            quantize(module)
        compressor = ModelCompressor.from_pretrained_model(model, form)
        compressor.compress_model(model)
        model.save_pretrained(out)
        compressor.update_config(out)
        for module in quantized:
            decompress_module(module, form)
        (out / "expected").mkdir()
        state = {key: value.contiguous() for key, value in model.state_dict().items() if key.endswith(".weight")}
        save_file(state, out / "expected/model.safetensors")
