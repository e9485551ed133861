"""Every robustness metric by brute force, for comparison_oracle.py; draws are made again from their definition in
csrc/eval/perturb.h."""
import numpy as np
import torch

MASK = 2**64 - 1
REPLACES, REPLACEMENT, ONE_POSITION, ONE_REPLACEMENT, NOISE = range(0x70657274, 0x70657274 + 5)


def mix64(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def draw(*counters):
    h = 0
    for c in counters:
        h = mix64(h ^ mix64(c))
    return h


def another(token, h, V, special):
    others = [i for i in range(V) if i not in special and i != token]
    return others[h * len(others) >> 64]


def predict(net, V, window, inputs=None, noise=None):
    """Per prediction: -ln p(target), best id."""
    ids = torch.tensor([window[:-1] if inputs is None else inputs])
    with torch.no_grad():
        x = net.get_input_embeddings()(ids)
        if noise is not None:
            x = x + noise[0] * x.pow(2).mean().sqrt() * noise[1]
        logits = net(inputs_embeds=x).logits[0]
    nll = torch.nn.functional.cross_entropy(logits, torch.tensor(window[1:]), reduction="none")
    return nll.double().numpy(), logits[:, :V].float().argmax(1).numpy()


def mean_and_interval(sums, counts):
    """Ratio of sums; its error by the delete-one linearisation sum (s - m c)^2 n / (n - 1) / (sum c)^2."""
    s, c = np.array(sums, dtype=float), np.array(counts, dtype=float)
    m, n = s.sum() / c.sum(), len(s)
    error = 1.96 * np.sqrt(((s - m * c) ** 2).sum() * n / (n - 1)) / c.sum()
    return [m, m - error, m + error]


def measure(model, roles):
    """model: {name: net}. Of each metric the mean and its interval."""
    names, V, special, seed = list(model), roles["num_tokens"], set(roles["special_ids"]), roles["seed"]
    windows = [[int(i) for i in w] for w in np.array(roles["tokens"]).reshape(-1, roles["length"])]
    rows = {}  # name of a metric -> per window (sum, count)

    def record(metric, values):
        rows.setdefault(metric, []).append((values.sum(), len(values)))

    for w, window in enumerate(windows):
        inputs = window[:-1]
        ordinary = [t for t, i in enumerate(inputs) if i not in special]
        spot = ordinary[draw(ONE_POSITION, seed, w) * len(ordinary) >> 64]
        wrong = list(inputs)
        wrong[spot] = another(inputs[spot], draw(ONE_REPLACEMENT, seed, w), V, special)
        best = {}
        for n in names:
            nll, clean = predict(model[n], V, window)
            record(f"{n} clean", nll)
            for rate in (0.01, 0.05, 0.15):
                text = [another(i, draw(REPLACEMENT, seed, w, t), V, special) if t in ordinary and (draw(REPLACES, seed, w, t) >> 11) * 2.0**-53 < rate else i
                        for t, i in enumerate(inputs)]
                record(f"{n} rate {rate}", predict(model[n], V, window, text)[0])
            generator = torch.Generator().manual_seed(draw(NOISE, seed, w))
            noise = torch.randn(len(inputs), model[n].config.hidden_size, generator=generator)
            for strength in (0.05, 0.1, 0.2):
                record(f"{n} strength {strength}", predict(model[n], V, window, noise=(noise, strength))[0])
            perturbed = predict(model[n], V, window, wrong)[1]
            best[n] = (clean, perturbed)
            record(f"{n} flips", (clean != perturbed)[spot:])
        record("agreement", best["student"][0] == best["teacher"][0])
        record("agreement right", (best["student"][0] == best["teacher"][0])[spot:])
        record("agreement after", (best["student"][1] == best["teacher"][1])[spot:])
    for metric in [m for m in rows if m.startswith("student") and "flips" not in m]:
        teacher = rows[metric.replace("student", "teacher")]
        rows["difference" + metric[7:]] = [(s[0] - t[0], s[1]) for s, t in zip(rows[metric], teacher)]
    return {m: mean_and_interval(*zip(*v)) for m, v in rows.items()}
