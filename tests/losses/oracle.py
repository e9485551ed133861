"""The losses' definitions a second time, in 50-digit decimals and plain loops: values, and derivatives by central differences.

python3 oracle.py CASES.json RESULTS.json     cases: [{loss, temperature, top_k, num_tokens, share, student, teacher, targets}]; null is -inf
results: [{values: [N], gradients: [[V]]}], one value a row (no weights). "inf" where the definition says so.
"""
import json
import sys
from decimal import Decimal, getcontext

getcontext().prec = 50
STEP = Decimal("1e-15")
ZERO = Decimal(0)


def softmax(x, temperature=Decimal(1)):
    top = max(v for v in x if v is not None)
    e = [ZERO if v is None else ((v - top) / temperature).exp() for v in x]
    total = sum(e)
    return [v / total for v in e]


def kl(p, q):
    """sum p ln(p/q) with 0 ln 0 = 0; None for infinity."""
    total = ZERO
    for a, b in zip(p, q):
        if a == 0:
            continue
        if b == 0:
            return None
        total += a * (a / b).ln()
    return total


def ce(case, s, z, target):
    return -softmax(s)[target].ln()


def forward(case, s, z, target):
    t = Decimal(case["temperature"])
    d = kl(softmax(z, t), softmax(s, t))
    return None if d is None else t * t * d


def reverse(case, s, z, target):
    t = Decimal(case["temperature"])
    d = kl(softmax(s, t), softmax(z, t))
    return None if d is None else t * t * d


def cakld(case, s, z, target):
    share = Decimal(case["share"])
    forward_, reverse_ = forward(case, s, z, target), reverse(case, s, z, target)
    return None if forward_ is None or reverse_ is None else share * forward_ + (1 - share) * reverse_


def jsd(case, s, z, target):
    t, share = Decimal(case["temperature"]), Decimal(case["share"])
    p, q = softmax(z, t), softmax(s, t)
    m = [share * a + (1 - share) * b for a, b in zip(p, q)]
    return t * t * (share * kl(p, m) + (1 - share) * kl(q, m))


def smoothness(case, s, z, target):
    tau, k = Decimal(case["temperature"]), case["top_k"]
    tokens = case["num_tokens"] or len(z)
    candidates = [i for i in range(tokens) if z[i] is not None]
    K = sorted(candidates, key=lambda i: (-z[i], i))[:k]
    P = sum(softmax(z)[i] for i in K)
    sigma = softmax(s)
    Q, rest = sum(sigma[i] for i in K), sum(v for i, v in enumerate(sigma) if i not in K)
    z_rest = sum(v for i, v in enumerate(softmax(z)) if i not in K)
    inside = kl(softmax([z[i] for i in K], tau), softmax([s[i] for i in K], tau))
    tail = kl([P, z_rest], [Q, rest])
    return None if inside is None or tail is None else P * tau * tau * inside + tail


LOSSES = {"ce": ce, "forward": forward, "reverse": reverse, "cakld": cakld, "jsd": jsd, "smoothness": smoothness}


def solve(case):
    loss = LOSSES[case["loss"]]
    values, gradients = [], []
    for s, z, target in zip(case["student"], case["teacher"], case["targets"]):
        s = [None if v is None else Decimal(v) for v in s]
        z = [None if v is None else Decimal(v) for v in z]
        value = loss(case, s, z, target)
        values.append("inf" if value is None else float(value))
        row = []
        for i, v in enumerate(s):
            if v is None or value is None:
                row.append(0.0)
                continue
            shifted = [loss(case, s[:i] + [v + d] + s[i + 1:], z, target) for d in (STEP, -STEP)]
            row.append(float((shifted[0] - shifted[1]) / (2 * STEP)))
        gradients.append(row)
    return {"values": values, "gradients": gradients}


if __name__ == "__main__":
    with open(sys.argv[1]) as f:
        cases = json.load(f)
    with open(sys.argv[2], "w") as f:
        json.dump([solve(c) for c in cases], f)
