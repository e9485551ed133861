"""The plots of smoothness_study.py, as SVG. Needs matplotlib."""
import os
import statistics

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

matplotlib.rcParams.update({"svg.hashsalt": "satin", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
# Distinguishable for colour-blind readers (Okabe and Ito).
COLOURS = {"ce": "#000000", "kd": "#E69F00", "near": "#0072B2", "random": "#D55E00", "top-k": "#CC79A7", "lgr": "#009E73", "branch": "#56B4E9"}
LABELS = {"near": "neighbours", "random": "random tokens", "ce": "cross-entropy", "kd": "KD alone", "top-k": "top-k KL", "lgr": "LGR", "branch": "branch tokens"}


def family(setting):
    return next((f for f in ("branch", "near", "random", "top-k", "lgr", "kd", "ce") if f in setting.split()), "ce")


def mean(rows, key):
    return statistics.mean(r[key] for r in rows)


def save(figure, directory, name):
    figure.tight_layout()
    figure.savefig(os.path.join(directory, name), metadata={"Date": None, "Creator": None})
    plt.close(figure)


def screening(settings, directory):
    """In domain against out of domain: towards the lower left is better."""
    figure, axis = plt.subplots(figsize=(8, 5.5))
    points = [(mean(rows, "books-valid"), mean(rows, "wikitext2"), setting) for setting, rows in settings.items()
              if not setting.startswith("ce")]  # far away: see the table
    for x, y, setting in points:
        axis.plot(x, y, "o", color=COLOURS[family(setting)], markersize=6)
    figure.canvas.draw()
    taken = [axis.transData.transform((x, y)) for x, y, _ in points]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in taken]
    for x, y, setting in points:
        # The first place beside the point that is free.
        px, py = axis.transData.transform((x, y))
        width, height = 5 * len(setting), 8
        places = [(6, -3), (-6 - width, -3), (6, 6), (6, -12), (-width / 2, 8), (-width / 2, -16), (-6 - width, 6), (-6 - width, -12)]
        boxes = [(px + dx, py + dy, px + dx + width, py + dy + height) for dx, dy in places]
        free = [i for i, b in enumerate(boxes) if b[0] > axis.bbox.x0 and not any(b[0] < t[2] and t[0] < b[2] and b[1] < t[3] and t[1] < b[3] for t in taken)]
        best = free[0] if free else 0
        taken.append(boxes[best])
        axis.annotate(setting, (x, y), xytext=places[best], textcoords="offset pixels", fontsize=7, color=COLOURS[family(setting)])
    axis.set_xlabel("books-valid perplexity (in domain)")
    axis.set_ylabel("WikiText-2 perplexity (out of domain)")
    axis.set_title("2 bits, groups of 64, 24M tokens: one setting changed at a time")
    save(figure, directory, "smoothness-screening.svg")


def candidates(settings, directory):
    """D_k: what the teacher thinks of the student's k-th candidate, beyond what it thinks of its own."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for setting in ("ce", "kd", "top-k .5", "random .3", "near .15 tau 4 depth 2"):
        if setting not in settings:
            continue
        curves = [r["smoothness"]["neighbour_nll"]["excess"] for r in settings[setting]]
        axis.plot(range(1, 41), [statistics.mean(values) for values in zip(*curves)], color=COLOURS[family(setting)], label=setting)
    axis.set_xlabel("k, rank by the student")
    axis.set_ylabel("excess of D_k, nats")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
    axis.set_title("How much worse the student's k-th candidate is")
    save(figure, directory, "smoothness-candidates.svg")


def gradients(groups, directory):
    """Input gradients of student over teacher, by set and setting."""
    names = [(key, setting) for key, settings in groups.items() if key[0] != "scratch" for setting in settings if setting in
             ("ce", "kd", "near .15", "near .3", "near .15 tau 4 depth 2", "random .3", "top-k .5", "lgr .1")]
    figure, axis = plt.subplots(figsize=(8, 0.24 * len(names) + 1.2))
    for place, (key, setting) in enumerate(names):
        values = [r["smoothness"]["gradient_norm"]["x0"]["C_avg"]["ratio"] for r in groups[key][setting]]
        axis.plot(values, [place] * len(values), "o", color=COLOURS[family(setting)], markersize=5)
    axis.axvline(1, color="#888888", linewidth=1)
    axis.set_yticks(range(len(names)), [f"{key[0]}, {key[1]}: {setting}" for key, setting in names], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("C_avg at x0, student / teacher (left is smoother); a dot a seed")
    save(figure, directory, "smoothness-gradients.svg")


def draw(groups, teacher, directory):
    os.makedirs(directory, exist_ok=True)
    by_set = {}
    for (name, which), settings in groups.items():
        by_set.setdefault(name, {})[which] = settings
    if "screening" in by_set:
        screening(by_set["screening"]["2 bits g64"], directory)
    if "main" in by_set:
        candidates(by_set["main"]["2 bits g64"], directory)
    gradients(groups, directory)
