"""How unsure an ensemble is of each node, one function per measure.

All take the members' unconstrained probabilities `[members, batch, nodes]` in [0, 1] and return
`[batch, nodes]`. Formulas as collected for arXiv 2602.08986; entropies and divergences are in bits,
so every measure but `kl` lies in [0, 1]. With one member, measures of disagreement are 0, and `gmu`
is its limit for members that agree, `bbma`.
"""

import math
from collections.abc import Callable, Mapping
from itertools import combinations
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

# Keeps logarithms and ratios finite at probabilities of exactly 0 or 1.
EPSILON = 1e-10

Probabilities = Float[Tensor, "members batch nodes"]
Uncertainty = Float[Tensor, "batch nodes"]


def bbma(probabilities: Probabilities) -> Uncertainty:
    """Closeness of the binary Bayesian model average to one half: `1 − |2p̄ − 1|`."""
    return 1 - _margin(probabilities)


def entropy(probabilities: Probabilities) -> Uncertainty:
    """Total uncertainty, the entropy of the averaged prediction: `H₂(p̄)`."""
    return _binary_entropy(probabilities.mean(dim=0))


def aleatoric(probabilities: Probabilities) -> Uncertainty:
    """What members are unsure of each on its own: `mean_m H₂(p_m)`."""
    return _binary_entropy(probabilities).mean(dim=0)


def mutual_information(probabilities: Probabilities) -> Uncertainty:
    """What only the ensemble is unsure of: `H₂(p̄) − mean_m H₂(p_m)`, at least 0."""
    return (entropy(probabilities) - aleatoric(probabilities)).clamp(min=0)


def jsd(probabilities: Probabilities) -> Uncertainty:
    """Disagreement, the mean Jensen–Shannon divergence over pairs of members `m ≠ m'`.

    `JSD(p, q) = H₂((p + q) / 2) − (H₂(p) + H₂(q)) / 2`.
    """
    pairs = list(combinations(probabilities, 2))
    if not pairs:
        return torch.zeros_like(probabilities[0])
    mixed = sum(_binary_entropy((p + q) / 2) for p, q in pairs) / len(pairs)
    return (mixed - aleatoric(probabilities)).clamp(min=0)


def kl(probabilities: Probabilities) -> Uncertainty:
    """Disagreement, the mean binary Kullback–Leibler divergence over ordered pairs `m ≠ m'`.

    Unbounded. Summed over pairs through the sums over members, so the cost is linear in members:
    `Σ_{m,m'} p_m (log p_m − log p_m') = M Σ_m p_m log p_m − (Σ_m p_m)(Σ_m log p_m)`.
    """
    members = len(probabilities)
    if members == 1:
        return torch.zeros_like(probabilities[0])
    total = torch.zeros_like(probabilities[0])
    for p in (probabilities, 1 - probabilities):
        log_p = torch.log2(p + EPSILON)
        total = total + members * (p * log_p).sum(dim=0) - p.sum(dim=0) * log_p.sum(dim=0)
    return (total / (members * (members - 1))).clamp(min=0)


def gmu(probabilities: Probabilities) -> Uncertainty:
    """Gated margin uncertainty: the margin counts only as far as members agree on it.

    `1 − (1 − exp(−|2p̄ − 1| / 2s)) · |2p̄ − 1|`, `s` the unbiased standard deviation over members.
    """
    if len(probabilities) == 1:
        return bbma(probabilities)
    margin = _margin(probabilities)
    spread = probabilities.std(dim=0)
    return 1 - (1 - torch.exp(-margin / (2 * spread + EPSILON))) * margin


_KINDS = {f.__name__: f for f in (bbma, entropy, aleatoric, jsd, kl, gmu, mutual_information)}
KINDS: Mapping[str, Callable[[Probabilities], Uncertainty]] = MappingProxyType(_KINDS)


def register(
    measure: Callable[[Probabilities], Uncertainty],
) -> Callable[[Probabilities], Uncertainty]:
    """Make a measure known by its function's name, in losses as in settings; usable as a decorator.

    Where this module's measures have compiled code, others are computed as they are written.

    Args:
        measure: maps `[members, batch, nodes]` in [0, 1], at least one member, to
            `[batch, nodes]`, at least 0.

    Returns:
        The measure.

    Raises:
        ValueError: another measure has the name.

    """
    name = measure.__name__
    if _KINDS.setdefault(name, measure) is not measure:
        raise ValueError(f"there is an uncertainty {name!r} already: name the function otherwise")
    return measure


def check_kind(kind: str) -> str:
    """The kind itself, if it is a key of `KINDS`.

    Raises:
        ValueError: it is not.

    """
    if kind not in KINDS:
        raise ValueError(f"unknown uncertainty {kind!r}: known are {', '.join(KINDS)}")
    return kind


def uncertainty(probabilities: Probabilities, kind: str) -> Uncertainty:
    """Uncertainty of an ensemble for every example and node.

    Args:
        probabilities: `[members, batch, nodes]`, unconstrained, in [0, 1].
        kind: a key of `KINDS`.

    Returns:
        `[batch, nodes]`.

    Raises:
        ValueError: an unknown kind, or no members.

    """
    check_kind(kind)
    if len(probabilities) == 0:
        raise ValueError("uncertainty needs at least one member, found none")
    return KINDS[kind](probabilities)


def _margin(probabilities: Probabilities) -> Uncertainty:
    return (2 * probabilities.mean(dim=0) - 1).abs()


def _binary_entropy(p: Tensor) -> Tensor:
    """Entropy in bits of a Bernoulli variable, elementwise; 0 at p = 0 and p = 1."""
    nats = -p * torch.log(p + EPSILON) - (1 - p) * torch.log(1 - p + EPSILON)
    return (nats / math.log(2)).clamp(min=0)
