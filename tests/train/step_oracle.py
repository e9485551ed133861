"""One training step in fp64 by transformers' model, quantizers written from their formulas and torch's autograd.

  step_oracle.py OUT    writes OUT/model (weights), OUT/inputs.safetensors and, for every case, OUT/<case>.json with the
                        losses and OUT/<case>.safetensors with the gradient of every parameter
  step_oracle.py OUT CONTEXT.safetensors
                        one more case, <method>-neighbourhood, of student and teacher reading the tensor "context" instead
                        of the tokens, which stay the targets
"""
import json
import math
import os
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

GROUP, TOP_K, TAU = 8, 5, 2.0
METHODS = {"dense": None, "minmax_symmetric": 3, "minmax_asymmetric": 2, "lsq": 3, "lsq2": 2, "lsq_asymmetric": 2, "seq": 2, "ternary": 2, "binary": 1, "bitnet": 2}
# label: method, bits, what else the configuration says; with the losses ce and all
VARIANTS = {"lwc": ("lwc", 3, {}), "onebit": ("onebit", 1, {"group_size": -1}), "lsq_tensor": ("lsq", 3, {"group_size": 0}),
            "lsq_int8": ("lsq", 3, {"activations": "int8"}), "lsq_kv4": ("lsq", 3, {"kv_cache": "int4"})}
LOSSES = {"ce": {"ce": 1.0}, "kd": {"kd": 1.0}, "smoothness": {"smoothness": 1.0}, "all": {"ce": 0.3, "kd": 0.7, "smoothness": 0.5},
          "kd_warm": {"kd": 1.0}, "kd_reverse": {"kd": 1.0}, "kd_reverse_warm": {"kd": 1.0}}
HIDDEN = {"hidden": ({"kd": 0.7, "hidden": 2.0}, "all"), "hidden_last": ({"ce": 0.3, "hidden": 1.5}, "last")}  # weights, layers
KD = {"kd_warm": ("forward", 2.0), "kd_reverse": ("reverse", 1.0), "kd_reverse_warm": ("reverse", 0.5)}  # kind, temperature


def fp64_model():
    """transformers computes norms (and eager attention's softmax) in fp32 whatever the dtype; here they are fp64, as defined."""
    def norm(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    modeling_llama.LlamaRMSNorm.forward = norm


def bf16(x):
    return x.to(torch.bfloat16).to(x.dtype)


class Quantize(torch.autograd.Function):
    """w [N, K], s [N, G], z [N, G] or None. Gradients: LSQ (Esser 2020, eq. 3), ParetoQ for SEQ, ternary and binary (the
    scale's: sign(w) everywhere); BitNet b1.58: straight through everywhere, the scale is data. m multiplies the gradients
    of scales and zero points."""

    @staticmethod
    def forward(ctx, w, s, z, method, bits, m):
        ctx.save_for_backward(w, s, z)
        ctx.method, ctx.bits, ctx.m = method, bits, m
        value, _, _, _ = levels(w, s, z, method, bits)
        return bf16(value).reshape(w.shape)

    @staticmethod
    def backward(ctx, g):
        w, s, z = ctx.saved_tensors
        _, q, inside, u = levels(w, s, z, ctx.method, ctx.bits)
        g = g.reshape(q.shape)
        learned = not ctx.method.startswith("minmax") and ctx.method != "bitnet"
        ds = (g * (q if ctx.method == "binary" else torch.where(inside, q - u, q))).sum(-1) * ctx.m if learned else None
        dz = None
        if z is not None:
            a = stored(s, ctx.method)[1]
            dz = (g * torch.where(inside, torch.zeros_like(g), -a[..., None].expand_as(g))).sum(-1) * ctx.m
        return torch.where(inside, g, torch.zeros_like(g)).reshape(w.shape), ds, dz, None, None, None


class Sign(torch.autograd.Function):
    """OneBit's: its gradient is 1.001 - tanh(w)^2, as its authors release it."""

    @staticmethod
    def forward(ctx, w):
        ctx.save_for_backward(w)
        return torch.where(w < 0, -1.0, 1.0).to(w)

    @staticmethod
    def backward(ctx, g):
        return g * (1.001 - torch.tanh(ctx.saved_tensors[0]) ** 2)


class Stored(torch.autograd.Function):
    """A scale as a file holds it; straight through, times m."""

    @staticmethod
    def forward(ctx, s, m):
        ctx.m = m
        return bf16(torch.clamp(s, min=1e-5))

    @staticmethod
    def backward(ctx, g):
        return g * ctx.m, None


class Int(torch.autograd.Function):
    """x [..., C] as integers of +- top times the scale of its row; straight through."""

    @staticmethod
    def forward(ctx, x, top):
        scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-5) / top
        return torch.round(x / scale).clamp(-top, top) * scale

    @staticmethod
    def backward(ctx, g):
        return g, None


def multiplier(bits, weights_a_scale):
    return 1 / math.sqrt(weights_a_scale * (1 if bits <= 2 else 2 ** (bits - 1) - 1))


def clipped(w, high, low, bits):
    """Scale and zero point of OmniQuant's learned clipping; the weight's extremes are constants, the zero point divides by
    the scale as stored, straight through."""
    x = w.detach().reshape(w.shape[0], -1, GROUP)
    top = torch.sigmoid(high) * x.amax(-1).clamp(min=0)
    bottom = torch.sigmoid(low) * x.amin(-1).clamp(max=0)
    s = (top - bottom) / (2 ** bits - 1)
    return s, -bottom / (s + (stored(s, "lwc")[1] - s).detach())


def quantize(name, w, method, bits, extra, inputs, leaves):
    """The weight that the model computes with; its quantizer's parameters are added to the leaves."""
    def leaf(suffix, value=None):
        leaves[name + suffix] = (inputs[name + suffix] if value is None else value).double().requires_grad_(True)
        return leaves[name + suffix]

    group = extra.get("group_size", GROUP)
    if method == "lwc":
        s, z = clipped(w, leaf("_clip_high"), leaf("_clip_low"), bits)
        return Quantize.apply(w, s, z, method, bits, 1.0)
    if method.startswith("minmax") or method == "bitnet":
        return Quantize.apply(w, inputs[name + "_scale"].double(), None, method, bits, 1.0)
    rows, columns = w.shape
    if group == -1:
        return Sign.apply(w) * Stored.apply(leaf("_scale", inputs[name + "_scale"][:, :1].contiguous()), multiplier(bits, columns))
    if group == 0:
        s = leaf("_scale", inputs[name + "_scale"][:1, :1].contiguous()).expand(rows, 1)
        return Quantize.apply(w, s, None, method, bits, multiplier(bits, rows * columns))
    z = leaf("_zero_point") if method == "lsq_asymmetric" else None
    return Quantize.apply(w, leaf("_scale"), z, method, bits, multiplier(bits, group))


def add_hooks(model, method, extra, names, inputs, leaves):
    """What a layer does around its product; -> a function that undoes what is not the model's own."""
    rotate = modeling_llama.apply_rotary_pos_emb
    modules = dict(model.named_modules())
    for name in names:
        module = modules[name.removesuffix(".weight")]
        if extra.get("activations") == "int8":
            module.register_forward_pre_hook(lambda _, args: (Int.apply(args[0], 127),))
        if method == "onebit":
            h = leaves[name.removesuffix("weight") + "input_vector"] = inputs[name.removesuffix("weight") + "input_vector"].double().requires_grad_(True)
            module.register_forward_pre_hook(lambda _, args, h=h: (args[0] * h,))
            module.register_forward_hook(lambda _, args, y: F.layer_norm(y, y.shape[-1:]))
        if extra.get("kv_cache") == "int4" and "v_proj" in name:
            module.register_forward_hook(lambda _, args, y: Int.apply(y.unflatten(-1, (-1, 8)), 7).flatten(-2))
    if extra.get("kv_cache") == "int4":
        def rounded(*args, **kwargs):
            q, k = rotate(*args, **kwargs)
            return q, Int.apply(k, 7)

        modeling_llama.apply_rotary_pos_emb = rounded

    def undo():
        modeling_llama.apply_rotary_pos_emb = rotate
    return undo


def stored(s, method):
    """The number that a file holds and the scale a that it stands for."""
    unit = {"seq": 0.25, "ternary": 2 / 3}.get(method, 1.0)
    t = bf16(torch.clamp(s, min=1e-5) * unit)
    return t, t / unit


def levels(w, s, z, method, bits):
    """-> dequantised value, q = value / a, inside, u = w / a; all [N, G, GROUP]."""
    x = w.reshape(w.shape[0], s.shape[1], -1)
    if method.startswith("minmax"):
        if method == "minmax_symmetric":
            s, z = x.abs().amax(-1) / ((2 ** bits - 1) / 2), None
        else:
            low, high = x.amin(-1).clamp(max=0), x.amax(-1).clamp(min=0)
            s = (high - low) / (2 ** bits - 1)
            z = torch.clamp(torch.round(-low / stored(s, method)[1]), 0, 2 ** bits - 1)
    if method == "bitnet":
        s = x.abs().mean(-1)
    t, a = (v[..., None] for v in stored(s, method))
    u = x / a
    if method == "seq":
        inside = u.abs() < 0.99
        level = 2 * torch.round(2 * u.clamp(-0.99, 0.99) - 0.5) + 1  # -3, -1, 1, 3
        return t * level, level / 4, inside, u
    if method == "ternary":
        inside = u.abs() < 0.99
        level = torch.round(1.5 * u.clamp(-0.99, 0.99))
        return t * level, level * 2 / 3, inside, u
    if method == "binary":
        level = torch.where(u < 0, -1.0, 1.0).to(u)
        return t * level, level, u.abs() <= 1, u
    if method == "bitnet":
        level = torch.round(u.clamp(-1, 1))
        return t * level, level, torch.ones_like(u, dtype=torch.bool), u
    if z is None:
        low, high = -2 ** (bits - 1), 2 ** (bits - 1) - 1
        level = torch.round(u).clamp(low, high)
        return t * level, level, (u >= low) & (u <= high), u
    zero = torch.clamp(torch.round(z), 0, 2 ** bits - 1)[..., None]
    raw = torch.round(u) + zero
    level = raw.clamp(0, 2 ** bits - 1) - zero
    return t * level, level, (raw >= 0) & (raw <= 2 ** bits - 1), u


def smoothness(s, z):
    """Section by section from the definition: top-k KL at temperature, plus the two-bucket KL of the masses."""
    top = torch.topk(z, TOP_K, -1).indices
    p, q = torch.log_softmax(z.gather(-1, top) / TAU, -1), torch.log_softmax(s.gather(-1, top) / TAU, -1)
    P, Q = torch.softmax(z, -1).gather(-1, top).sum(-1), torch.softmax(s, -1).gather(-1, top).sum(-1)
    inner = P * TAU ** 2 * (p.exp() * (p - q)).sum(-1)
    return inner + P * (P / Q).log() + (1 - P) * ((1 - P) / (1 - Q)).log()


def distillation(s, z, kind, T):
    """T^2 KL(teacher || student) of the softmaxes at temperature T; reverse: KL(student || teacher)."""
    p, q = torch.log_softmax(z / T, -1), torch.log_softmax(s / T, -1)
    return T * T * ((p.exp() * (p - q)) if kind == "forward" else (q.exp() * (q - p))).sum(-1)


def streams(model):
    """The residual stream after each layer, filled in as the model runs. (transformers' own last one is behind the norm.)"""
    found = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda _, args, y: found.append(y[0] if isinstance(y, tuple) else y))
    return found


def hidden_distance(student, teacher, layers):
    """OneBit's L_MSE: squared distance of L2-normalised hidden states; the mean over the layers that are compared."""
    pairs = list(zip(student, teacher))[0 if layers == "all" else -1:]
    return sum((F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).pow(2).sum(-1) for a, b in pairs) / len(pairs)


def main(out, context_file=None):
    fp64_model()
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=1, head_dim=8, max_position_embeddings=32, rms_norm_eps=1e-5,
                         rope_theta=10000.0, tie_word_embeddings=True, initializer_range=0.3, attn_implementation="sdpa")
    base = LlamaForCausalLM(config)
    for name, p in base.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(p, 0.5, 1.5)
    if context_file is None:
        base.save_pretrained(out + "/model")
    tokens = torch.randint(0, 32, (4, 12))
    mask = torch.rand(4, 12) < 0.8
    mask[:, -1] = False
    names = [n for n, _ in base.named_parameters() if n.endswith("proj.weight")]
    inputs = {"tokens": tokens, "mask": mask.to(torch.uint8)}
    for name, p in base.named_parameters():
        if name in names:
            shape = (p.shape[0], p.shape[1] // GROUP)
            big = p.detach().reshape(*shape, GROUP).abs().amax(-1)
            inputs[name + "_scale"] = (big * (0.3 + 0.5 * torch.rand(shape))).float()
            inputs[name + "_zero_point"] = (1 + 1.6 * torch.rand(shape)).float()
            inputs[name + "_clip_high"], inputs[name + "_clip_low"] = torch.randn(shape), torch.randn(shape)
            inputs[name.removesuffix("weight") + "input_vector"] = 0.5 + torch.rand(p.shape[1])
    context = tokens
    cases = [(label, "lsq" if label == "lsq2" else label, bits, {}, loss) for label, bits in METHODS.items() for loss in LOSSES]
    cases += [(label, *variant, loss) for label, variant in VARIANTS.items() for loss in ("ce", "all")]
    cases += [("lsq_asymmetric", "lsq_asymmetric", 2, {}, loss) for loss in HIDDEN]
    if context_file is None:
        save_file(inputs, out + "/inputs.safetensors")
    else:
        cases = [("lsq_asymmetric", "lsq_asymmetric", 2, {}, "neighbourhood")]
        context = load_file(context_file)["context"]
        assert not torch.equal(context, tokens)

    teacher = LlamaForCausalLM.from_pretrained(out + "/model", dtype=torch.float64, attn_implementation="sdpa")
    teacher_streams = streams(teacher)
    with torch.no_grad():
        z = teacher(context).logits
    targets = tokens.roll(-1, 1)
    for label, method, bits, extra, loss_name in cases:
        weights, layers = HIDDEN.get(loss_name, (LOSSES.get(loss_name, {"ce": 0.3, "kd": 0.7}), "all"))
        model = LlamaForCausalLM.from_pretrained(out + "/model", dtype=torch.float64, attn_implementation="sdpa")
        params = dict(model.named_parameters())
        leaves = dict(params)
        call = {name: quantize(name, params[name], method, bits, extra, inputs, leaves) for name in names} if bits else {}
        undo = add_hooks(model, method, extra, names, inputs, leaves)
        own_streams = streams(model)
        logits = torch.func.functional_call(model, call, (context,)).logits
        undo()
        kind, T = KD.get(loss_name, ("forward", 1.0))
        parts = {"ce": -torch.log_softmax(logits, -1).gather(-1, targets[..., None])[..., 0], "kd": distillation(logits, z, kind, T),
                 "smoothness": smoothness(logits, z), "hidden": hidden_distance(own_streams, teacher_streams, layers)}
        means = {k: (v * mask).sum() / mask.sum() for k, v in parts.items() if k in weights}
        sum(weights[k] * v for k, v in means.items()).backward()
        save_file({k: (torch.zeros_like(v) if v.grad is None else v.grad).contiguous() for k, v in leaves.items()},
                  f"{out}/{label}-{loss_name}.safetensors")
        json.dump({"method": method, "bits": bits, "extra": extra, "weights": weights, "kd_kind": kind, "kd_temperature": T, "hidden_layers": layers, "losses": {k: v.item() for k, v in means.items()}},
                  open(f"{out}/{label}-{loss_name}.json", "w"))


if __name__ == "__main__":
    os.makedirs(sys.argv[1], exist_ok=True)
    main(*sys.argv[1:])
