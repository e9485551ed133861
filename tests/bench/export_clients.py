#!/usr/bin/env python3
"""A real model in real clients: quantized, exported to every format that holds it exactly, and read by the programs that users run.

  export_clients.py --satin build/release/satin --model MODEL --text FILE --output out/ [--schemes "2 bits g64,..."] [--windows 16] [--prompts 20]

For each scheme: `satin quantize` (round to nearest, searched scales), `satin export` to each format, and then
  satin      perplexity before and after, equal to 6 digits (`satin eval`, fp32)
  clients    perplexity on the same tokens (windows of 256): transformers (hf, compressed-tensors; fp32), GPTQModel (gptq, awq; the
             model's 16 bits), llama.cpp (gguf); at most 0.5 % from satin's. llama.cpp rounds activations, so it is compared with
             transformers on the `hf` export with each input rounded as llama.cpp does for that block type
  text       64 greedy tokens after each prompt, where the client computes in fp32: equal to `satin generate`
Exit status 1 when any of it differs. A client that is not installed, or refuses the file, is named with its message.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "export"))
import numpy as np
import torch
from tokenizers import Tokenizer

WINDOW, NEW_TOKENS = 256, 64
SCHEMES = {"2 bits g64": ("lsq_asymmetric", 2, 64), "seq g256": ("seq", 2, 256), "3 bits g256": ("lsq", 3, 256), "4 bits g128": ("lsq", 4, 128),
           "ternary g256": ("ternary", 1.58, 256)}
FORMATS = ("hf", "compressed-tensors", "gptq", "awq", "gguf", "bitnet")


def run(*command, may_refuse=False, **environment):
    result = subprocess.run([str(x) for x in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, **environment))
    if result.returncode not in (0, 2 if may_refuse else 0):
        sys.exit(f"{' '.join(map(str, command))}\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return result


class Satin:
    def __init__(self, args):
        self.args, self.binary = args, args.satin.resolve()

    def quantize(self, scheme, folder):
        method, bits, group = scheme
        folder.mkdir(parents=True)
        config = {"model": {"path": str(self.args.model.resolve())}, "train": {"output_dir": str(folder / "run")},
                  "quantization": {"default": {"method": method, "bits": bits, "group_size": group}}}
        (folder / "quantize.yaml").write_text(json.dumps(config))  # JSON is YAML
        run(self.binary, "quantize", folder / "quantize.yaml")
        checkpoints = folder / "run/checkpoints"
        return checkpoints / (checkpoints / "latest").read_text().strip()

    def perplexity(self, model, text):
        out = self.args.output / "eval.json"
        run(self.binary, "eval", "--model", model, "--data", text, "--sequence-length", WINDOW, "--limit", self.args.windows, "--compute-dtype",
            "float32", "--device", "cpu", "--json", out)
        found = json.loads(out.read_text())
        return found.get("perplexity") or next(iter(found.values()))["perplexity"]["perplexity"]

    def texts(self, model, prompts):
        def text(prompt):
            return run(self.binary, "generate", "--model", model, "--prompt", prompt, "--max-new-tokens", NEW_TOKENS, "--temperature", 0, "--device", "cpu",
                       "--compute-dtype", "float32", OMP_NUM_THREADS="1").stdout.removesuffix("\n")  # several at a time: threads would wait for each other

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(text, prompts))


def torch_perplexity(model, windows):
    with torch.no_grad():
        total = sum(torch.nn.functional.cross_entropy(model(w[None]).logits[0, :-1].double(), w[1:], reduction="sum").item() for w in windows)
    return float(np.exp(total / (windows.numel() - len(windows))))


def transformers_client(directory, windows, prompts, tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype="auto")
    with torch.no_grad():
        model(windows[:1, :8])  # compressed-tensors unpacks now, in the file's dtype
    torch.nn.Module.float(model)  # its own float() refuses quantized models
    found = torch_perplexity(model, windows)
    texts = []
    with torch.no_grad():
        for ids in prompts:
            ids = torch.tensor([ids])
            out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS)
            texts.append(tokenizer.decode(out[0].tolist(), skip_special_tokens=True))
    return "transformers, fp32", found, texts


def gptqmodel_client(directory, windows, prompts, tokenizer):
    from gptqmodel import BACKEND, GPTQModel

    config = json.loads((directory / "config.json").read_text())
    backend = BACKEND.TORCH if config["quantization_config"]["quant_method"] == "gptq" else BACKEND.AWQ_TORCH
    dtype = getattr(torch, config["dtype"])
    model = GPTQModel.load(str(directory), device="cpu", backend=backend, dtype=dtype).model
    return f"GPTQModel, {config['dtype']}", torch_perplexity(model, windows), None


def llama_cpp_client(directory, windows, prompts, tokenizer):
    import llama_cpp

    model = llama_cpp.Model(next(pathlib.Path(directory).glob("*.gguf")))
    return "llama.cpp", model.perplexity(windows.flatten().tolist(), WINDOW)[0], None


def rounded_as_llama_cpp(x, block_type):
    """x [..., columns] as ggml's matrix product sees it beside weights of this type (ggml-cpu.c, type_traits_cpu: vec_dot_type)."""
    if block_type in ("F16", "BF16"):
        return x.to(torch.float16 if block_type == "F16" else torch.bfloat16).float()
    if block_type == "F32":
        return x
    blocks = x.reshape(*x.shape[:-1], -1, 256 if block_type.endswith("_K") or block_type.startswith("TQ") else 32)
    if blocks.shape[-1] == 256:  # Q8_K: the largest magnitude becomes -127, the scale is fp32
        scale = -blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True)) / 127
    else:  # Q8_0 and Q8_1: the scale is fp16
        scale = blocks.abs().amax(-1, keepdim=True) / 127
    codes = torch.where(scale == 0, torch.zeros_like(blocks), blocks / scale).round().clamp(max=127)
    return (codes * (scale if blocks.shape[-1] == 256 else scale.half().float())).reshape(x.shape)


def llama_cpp_reference(hf, directory, windows):
    """Perplexity of transformers in fp32 on the `hf` export, with inputs rounded as llama.cpp rounds them for the types of this file."""
    import gguf_names
    import gguf_reader
    from transformers import AutoModelForCausalLM

    file = gguf_reader.File(next(pathlib.Path(directory).glob("*.gguf")))
    types = {name: kind for name, (kind, _, _) in file.tensors.items()}
    model = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32)
    model.lm_head.register_forward_pre_hook(
        lambda _, inputs: (rounded_as_llama_cpp(inputs[0], types.get("output.weight", types["token_embd.weight"])),))
    for i, layer in enumerate(model.model.layers):
        for its_name, name in gguf_names.NAMES.items():
            if "norm" not in its_name:
                layer.get_submodule(name).register_forward_pre_hook(
                    lambda _, inputs, kind=types[f"blk.{i}.{its_name}.weight"]: (rounded_as_llama_cpp(inputs[0], kind),))
    return torch_perplexity(model, windows)


CLIENTS = {"hf": transformers_client, "compressed-tensors": transformers_client, "gptq": gptqmodel_client, "awq": gptqmodel_client, "gguf": llama_cpp_client}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--satin", "--model", "--text", "--output"):
        parser.add_argument(name, required=True, type=pathlib.Path)
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=20)
    args = parser.parse_args()
    shutil.rmtree(args.output, ignore_errors=True)
    args.output.mkdir(parents=True)
    satin, tokenizer = Satin(args), Tokenizer.from_file(str(args.model / "tokenizer.json"))
    lines = [line.strip() for line in args.text.read_text(encoding="utf-8").splitlines() if len(line) > 200]
    prompts = [" ".join(line.split()[:8]) for line in lines[: args.prompts]]
    prompt_ids = [tokenizer.encode(prompt).ids for prompt in prompts]
    text = args.output / "text.txt"  # one document, without its markers: the clients see the same windows
    text.write_text("\n".join(lines), encoding="utf-8")
    config = json.loads((args.model / "config.json").read_text())
    ids = [config["bos_token_id"]] + tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False).ids
    windows = torch.tensor(ids[: args.windows * WINDOW]).view(-1, WINDOW)
    failures = 0
    print(run(satin.binary, "--version").stdout.strip(), "torch", torch.__version__, flush=True)
    print(f"{args.windows} windows of {WINDOW} tokens, {len(prompts)} prompts of 8 words, {NEW_TOKENS} greedy tokens each\n")
    print("| scheme | format | satin before | after | client | its perplexity | reference | difference | same texts |\n|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in args.schemes.split(","):
        folder = args.output / name.replace(" ", "-")
        checkpoint = satin.quantize(SCHEMES[name], folder)
        before, texts = satin.perplexity(checkpoint, text), None
        for form in FORMATS:
            directory = folder / form
            result = run(satin.binary, "export", "--checkpoint", checkpoint, "--format", form, "--output", directory, may_refuse=True)
            if result.returncode:
                continue  # tests/export/matrix.py has the refusals
            after, row = satin.perplexity(directory, text), f"| {name} | {form} | {before:.6f} "
            failures += f"{before:.6f}" != f"{after:.6f}"
            try:
                client, found, its_texts = CLIENTS[form](directory, windows, prompt_ids, tokenizer)
            except ImportError as error:
                print(f"{row}| {after:.6f} | not installed: {error.name} | | | | |", flush=True)
                continue
            except ValueError as error:  # a client's refusal; tests/export has the oracle that shares its packing
                print(f"{row}| {after:.6f} | {' '.join(str(error).split())} | | | | |", flush=True)
                continue
            reference = llama_cpp_reference(folder / "hf", directory, windows) if form == "gguf" else after
            difference = found / reference - 1
            failures += abs(difference) > 0.005
            same = ""
            if its_texts is not None:
                texts = texts or satin.texts(directory, prompts)
                equal = sum(a == b for a, b in zip(texts, its_texts))
                failures += equal != len(prompts)
                same = f"{equal} of {len(prompts)}"
            print(f"{row}| {after:.6f} | {client} | {found:.6f} | {reference:.6f} | {100 * difference:+.4f} % | {same} |", flush=True)
    print(f"\n{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
