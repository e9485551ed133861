"""The shuffled order of windows, from the definition: an 8-round Feistel network, walked until it lands below n.

permute.py N KEY    prints the N places as a JSON list
"""
import json
import sys

MASK64 = 2**64 - 1


def mix64(x):  # SplitMix64's finaliser
    x = (x + 0x9E3779B97F4A7C15) & MASK64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK64
    return x ^ (x >> 31)


def counter_hash(*counters):
    h = 0
    for c in counters:
        h = mix64(h ^ mix64(c))
    return h


def permute(index, n, key):
    half = max(3, -(-(n - 1).bit_length() // 2))  # bits of a half: together they hold n - 1
    while True:
        left, right = divmod(index, 2**half)
        for r in range(8):
            left, right = right, left ^ counter_hash(key, r, right) % 2**half
        index = left * 2**half + right
        if index < n:
            return index


n, key = int(sys.argv[1]), int(sys.argv[2])
print(json.dumps([permute(i, n, key) for i in range(n)]))
