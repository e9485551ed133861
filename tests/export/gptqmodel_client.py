"""gptqmodel_client.py CASES: every folder in CASES holds `packed` (gptq or awq), `hf` (the same model, dense) and satin.safetensors (tokens [1, T] and
Satin's logits of them; `prompt`, how many of the tokens Satin continued greedily, 0: none). GPTQModel opens `packed`; its weights are hf's bit for bit, and
its log-probabilities Satin's, up to the 16 bits that it computes in. Awq also through transformers, whose loader is another."""
import os
import pathlib
import sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import torch
from gptqmodel import BACKEND, GPTQModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM


def check_weights(model, dense):
    """What a packed layer makes of one-hot inputs is its weight: one product a sum, no rounding after the weight's."""
    num_modules = 0
    for name, module in model.named_modules():
        if not hasattr(module, "qweight"):
            assert name + ".weight" not in dense or torch.equal(module.weight, dense[name + ".weight"]), name
            continue
        want, bias = dense[name + ".weight"].T, module.bias
        inputs = torch.randperm(len(want))[:64]  # 16-bit products are slow on a CPU
        module.bias = None
        found = module(torch.eye(len(want), dtype=want.dtype)[inputs])
        module.bias = bias
        assert found.dtype == want.dtype and torch.equal(found, want[inputs]), (name, (found - want[inputs]).abs().max())
        num_modules += 1
    return num_modules


def check_outputs(model, satin, dtype):
    tokens, num_prompt = satin["tokens"], int(satin["prompt"])
    found, want = (logits.float().log_softmax(-1) for logits in (model(tokens).logits, satin["logits"]))
    difference = (found - want).gather(-1, tokens.roll(-1, 1)[..., None])[:, :-1].abs()
    worst, mean = difference.max().item(), difference.mean().item()
    bounds = (0.1, 0.02) if num_prompt else (0.01, 0.002)
    scale = 1 if dtype == torch.bfloat16 else 1 / 8  # three more bits of mantissa
    assert worst < bounds[0] * scale and mean < bounds[1] * scale, (worst, mean)
    if num_prompt:
        prompt = tokens[:, :num_prompt]
        new = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=tokens.shape[1] - num_prompt, eos_token_id=None)
        assert torch.equal(new, tokens), (new, tokens)
    return worst, mean


def loaded(directory, dtype):
    config = AutoConfig.from_pretrained(directory)
    method = config.quantization_config["quant_method"]
    backend = BACKEND.TORCH if method == "gptq" else BACKEND.AWQ_TORCH  # the plain ones: others want a GPU
    yield "GPTQModel", GPTQModel.load(str(directory), device="cpu", backend=backend, dtype=dtype).model
    if method == "awq":
        config.quantization_config["backend"] = "torch_awq"
        yield "transformers", AutoModelForCausalLM.from_pretrained(directory, config=config, dtype=dtype)


with torch.no_grad():
    for case in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        dense, satin = load_file(case / "hf/model.safetensors"), load_file(case / "satin.safetensors")
        dtype = dense["model.norm.weight"].dtype
        for client, model in loaded(case / "packed", dtype):
            num_modules = check_weights(model, dense)
            worst, mean = check_outputs(model, satin, dtype)
            print(f"= {case.name}: {num_modules} modules in {client}, log-probabilities within {worst:.1e}, on average {mean:.1e}")
