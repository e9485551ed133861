"""Writes what the `tokenizers` library makes of every character.

usage: characters.py OUT_DIR            classes.json: {pattern: [[first, last], ...]} of characters that match it
       characters.py OUT_DIR --forms    plain.txt (each character alone and among marks) and NFC.txt, NFD.txt, ...
"""
import json
import random
import sys
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "L Lu Ll Lt Lm Lo M Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp Cc Cf Co".split()
SCRIPTS = "Arabic Armenian Bengali Cyrillic Devanagari Georgian Greek Han Hangul Hebrew Hiragana Katakana Latin Tamil Thai".split()
PATTERNS = [r"\p{%s}" % c for c in CATEGORIES] + [r"\p{%s}" % s for s in SCRIPTS] + [r"\s", r"\S", r"\d", r"\D", r"\w", r"\W", r"\h",
            r"\P{L}", r"\p{^N}", r"[^\s\p{L}\p{N}]", r"[\S]", r"[^\r\n\p{L}\p{P}\p{S}]", r"(?i:s)", r"(?i:k)", r"[!-/:-~&&]"[:-3] + "]",
            r"[^(\s|[.,!?…。，、।۔،])]", r".", r"\x41", r"[\x{4e00}-\x{9fff}]", r"\u00e9", r"[\-\]\[\\]"]


def runs(points):
    out = []
    for point in sorted(points):
        if out and out[-1][1] == point - 1:
            out[-1][1] = point
        else:
            out.append([point, point])
    return out


def main():
    out = Path(sys.argv[1])
    # Whole planes of ideographs, of private use and of nothing are represented by their ends.
    points = [*range(0xD800), *range(0xE000, 0x20010), *range(0x2A6D0, 0x2A710), *range(0x2B730, 0x2B750), *range(0x2B810, 0x2B830),
              *range(0x2CEA0, 0x2CEB0), *range(0x2EBE0, 0x2EC00), *range(0x2EE50, 0x2EE70), *range(0x2F800, 0x2FA20),
              *range(0x31340, 0x31360), *range(0x323A0, 0x323C0), 0x50000, *range(0xE0000, 0xE0200), 0xF0000, 0x10FFFD]
    if "--forms" in sys.argv:
        rng = random.Random(3)
        marks = [chr(c) for c in (0x301, 0x323, 0x327, 0x334, 0x345, 0x3099, 0x93C, 0x1161, 0x11A8, 0x1100, 0x3131, 0x314F, 0xFF76, 0xFF9E, 0xFFA1, 0xFFC2)]
        skip = {0x0A}
        lines = [chr(c) for c in points if c not in skip]
        lines += ["a\u0315\u0334" + chr(c) + "\u0327\u0301" for c in points if c not in skip and c < 0x1F000]
        lines += ["".join(rng.choice(marks) if rng.random() < .6 else chr(rng.choice(points[0x20:0x2000])) for _ in range(12)) for _ in range(20000)]
        (out / "plain.txt").write_bytes("".join(line + "\n" for line in lines).encode())
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            normalizer = getattr(normalizers, form)()
            (out / f"{form}.txt").write_bytes("".join(normalizer.normalize_str(line) + "\n" for line in lines).encode())
        return
    classes = {}
    blocks = ["".join(map(chr, points[i:i + 4000])) for i in range(0, len(points), 4000)]
    for pattern in PATTERNS:
        split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
        classes[pattern] = runs({ord(c) for block in blocks for piece, _ in split.pre_tokenize_str(block) for c in piece})
    digits = pre_tokenizers.Digits(individual_digits=False)
    found = set()
    for block in blocks:
        for piece, _ in digits.pre_tokenize_str("".join("\n" + c for c in block)):
            if "\n" not in piece:
                found.update(map(ord, piece))
    classes["Digits"] = runs(found)
    (out / "classes.json").write_text(json.dumps(classes))
    (out / "all.txt").write_text("".join(map(chr, points)), "utf-8", newline="")


main()
