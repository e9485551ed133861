"""Every smoothness metric by brute force, for comparison_oracle.py; the trees are walked again from the dumped contexts and
draws, on whole texts without a cache."""
import math

import numpy as np
import torch

K, THETA = 40, 1e-2


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def ranking(logits, V):
    """Ids of the best, ties to the lower id (logits rounded to fp32, where ties are made)."""
    return np.argsort(-logits[:V].astype(np.float32), kind="stable")[:K]


def gradients(net, window):
    """Logits of a window and |d f / d x| for embeddings and for the input of layer 1."""
    seen = {}
    hook = net.model.layers[1].register_forward_pre_hook(lambda module, inputs: seen.update(x1=inputs[0]))
    ids = torch.tensor(window)[None]
    x0 = net.get_input_embeddings()(ids).detach().requires_grad_()
    logits = net(inputs_embeds=x0, use_cache=False).logits[0]
    hook.remove()
    f = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
    norms = [g[0].double().norm(dim=1).numpy() for g in torch.autograd.grad(f, [x0, seen["x1"]])]
    return logits.detach().double().numpy(), norms


def measure(model, roles):
    """model: {name: net}."""
    names, V = list(model), roles["num_tokens"]
    windows = np.array(roles["tokens"]).reshape(-1, roles["length"])
    out = {n: {"D": np.zeros(min(K, V)), "effective": np.zeros(3), "entropy": 0.0, "nucleus": 0.0, "mass": 0.0} for n in names}
    norms = {n: ([], []) for n in names}
    positions = windows.size
    for window in windows:
        logits = {}
        for n in names:
            logits[n], (g0, g1) = gradients(model[n], window)
            norms[n][0].append(g0)
            norms[n][1].append(g1)
        for t in range(roles["length"]):
            log_p = {n: log_softmax(logits[n][t]) for n in names}
            judge = log_p["teacher"]
            own = ranking(logits["teacher"][t], V)
            for n in names:
                o, p = out[n], np.exp(log_p[n])
                ranked = ranking(logits[n][t], V)
                o["D"] -= judge[ranked] / positions
                for i, theta in enumerate([1e-2, 1e-3, 0.05 * np.exp(judge[:V].max())]):
                    o["effective"][i] += (np.exp(judge[ranked]) >= theta).sum() / positions
                o["entropy"] -= (p * log_p[n]).sum() / positions
                largest, mass, size = np.sort(p)[::-1], 0.0, 0
                while mass < 0.9:
                    mass, size = mass + largest[size], size + 1
                o["nucleus"] += size / positions
                o["mass"] += p[own].sum() / positions

    def walk(proposes):
        """Branches along each root's path."""
        roots = roles["roots"]["roots"]
        texts, branches, alive = [list(r["context"]) for r in roots], [[0] * 8 for _ in roots], [True] * len(roots)
        for depth in range(8):
            with torch.no_grad():
                ids = torch.tensor(texts)
                judged = log_softmax(model["teacher"](ids).logits[:, -1].double().numpy())
                proposed = model[proposes](ids).logits[:, -1].double().numpy()
            for r, root in enumerate(roots):
                children = [int(i) for i in ranking(proposed[r], V) if judged[r][i] >= math.log(THETA)]
                alive[r] = alive[r] and bool(children)
                if alive[r]:
                    branches[r][depth] = len(children)
                texts[r].append(children[root["draws"][depth] * len(children) >> 64] if alive[r] else 0)
        return branches

    for n in names:
        o, paths = out[n], np.array(walk(n), dtype=np.float64)
        o["D"], o["effective"] = o["D"].tolist(), o["effective"].tolist()
        for place, collected in zip(["x0", "x1"], norms[n]):
            g = np.concatenate(collected)
            bins = np.clip(np.floor(np.log10(g[g > 0]) * 10) + 100, 0, 119).astype(int)
            o[place] = {"C_avg": g.mean(), "C_lower": g.max(), "p50": np.quantile(g, 0.5), "p99": np.quantile(g, 0.99),
                        "histogram": np.bincount(bins, minlength=120).tolist()}
        for d in range(1, 9):
            nodes = paths[:, :d].prod(1)
            o[f"depth_{d}"] = {"mean_size": nodes.mean(), "mean_log1p_size": np.log(1 + nodes).mean()}
    return out
