"""Every uncertainty as its definition has it, in plain Python, one pair of members at a time."""

import math
from itertools import permutations
from statistics import fmean, stdev

EPSILON = 1e-10


def h2(p: float) -> float:
    return -sum(q * math.log2(q + EPSILON) for q in (p, 1 - p))


def kl2(p: float, q: float) -> float:
    pairs = [(p, q), (1 - p, 1 - q)]
    return sum(a * (math.log2(a + EPSILON) - math.log2(b + EPSILON)) for a, b in pairs)


def js2(p: float, q: float) -> float:
    middle = (p + q) / 2
    return (kl2(p, middle) + kl2(q, middle)) / 2


def over_pairs(divergence, p: list[float]) -> float:
    pairs = list(permutations(p, 2))
    return fmean(divergence(a, b) for a, b in pairs) if pairs else 0.0


def naive_gmu(p: list[float]) -> float:
    margin = abs(2 * fmean(p) - 1)
    spread = stdev(p) if len(p) > 1 else 0.0
    return 1 - (1 - math.exp(-margin / (2 * spread + EPSILON))) * margin


NAIVE = {
    "bbma": lambda p: 1 - abs(2 * fmean(p) - 1),
    "entropy": lambda p: h2(fmean(p)),
    "aleatoric": lambda p: fmean(map(h2, p)),
    "jsd": lambda p: over_pairs(js2, p),
    "kl": lambda p: over_pairs(kl2, p),
    "gmu": naive_gmu,
    "mutual_information": lambda p: h2(fmean(p)) - fmean(map(h2, p)),
}
