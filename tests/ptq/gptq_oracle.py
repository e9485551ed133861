#!/usr/bin/env python3
"""GPTQ as optimal brain surgery, in NumPy: the inverse of the damped Hessian is computed once, and each rounded column is
eliminated from it by a Gauss step. No Cholesky factor, no blocks: it shares only the mathematics.

  gptq_oracle.py WEIGHT HESSIAN CODES ROWS COLUMNS symmetric|asymmetric BITS GROUP DAMPING own|falling

WEIGHT and HESSIAN are raw float64; CODES is written as raw uint8. Scales: from each group's extremes, stored as bfloat16;
of the weights as they were (falling diagonal), or as compensated when the group is reached (own order).
"""
import sys

import numpy as np


def bfloat16(x):
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


def group_state(w, kind, bits):
    low, high = np.minimum(w.min(1), 0), np.maximum(w.max(1), 0)
    if kind == "asymmetric":
        top = 2**bits - 1
        scale = bfloat16(np.maximum((high - low) / top, 1e-5))
        return scale, np.clip(np.round(-low / scale), 0, top)
    scale = np.abs(w).max(1) / (2 ** (bits - 1) - 1)
    return bfloat16(np.maximum(scale, 1e-5)), np.full(len(w), 2.0 ** (bits - 1))


def main():
    weight, hessian, out = sys.argv[1:4]
    rows, columns = int(sys.argv[4]), int(sys.argv[5])
    kind, bits, group, damping, order = sys.argv[6], int(sys.argv[7]), int(sys.argv[8]), float(sys.argv[9]), sys.argv[10]
    w = np.fromfile(weight).reshape(rows, columns)
    h = np.fromfile(hessian).reshape(columns, columns)
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    falls = np.argsort(-np.diag(h), kind="stable") if order == "falling" else np.arange(columns)
    inverse = np.linalg.inv(h + damping * np.diag(h).mean() * np.eye(columns))
    states = {g: group_state(w[:, g * group:(g + 1) * group], kind, bits) for g in range(columns // group)}
    codes = np.zeros((rows, columns), np.uint8)
    left = np.ones(columns, bool)
    for j in falls:
        if order == "own" and j % group == 0:
            states[j // group] = group_state(w[:, j:j + group], kind, bits)
        scale, zero = states[j // group]
        code = np.clip(np.round(w[:, j] / scale) + zero, 0, 2**bits - 1)
        codes[:, j] = code
        error = w[:, j] - bfloat16(scale * (code - zero))
        left[j] = False
        w[:, left] -= np.outer(error / inverse[j, j], inverse[j, left])
        inverse = inverse - np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    codes.tofile(out)


main()
