"""Node weights: how much a node's examples count in the loss, by how rare the node is."""

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from rarenodes.hierarchy import Hierarchy

MODES = ("class-wise", "binary")


def node_weights(
    counts: Num[Tensor, " nodes"], num_examples: int, mode: str = "class-wise", floor: float = 0.25
) -> Float[Tensor, " nodes"]:
    """Weight of every node by the inverse of its frequency, rescaled to start at `floor`.

    `w_j = N / (K n_j)` with `K` the number of nodes (class-wise) or 2 (binary), and `w_j = 1` where
    `n_j` is 0 or `N`; then `floor + w_max (w_j − w_min) / (w_max − w_min)`. Where all nodes are
    equally frequent there is nothing to weight, and every weight is 1.

    Args:
        counts: `[nodes]`, positive training examples of each node, at least 0.
        num_examples: `N`, training examples.
        mode: `class-wise` or `binary`.
        floor: `ω`, the weight of the most frequent node, above 0.

    Returns:
        `[nodes]`, float64 where `counts` are, else float32; in `[floor, floor + w_max]`, or all 1.

    Raises:
        ValueError: an unknown mode, counts that are negative, NaN or none, no examples, or a floor
            that is not above 0.

    Source: arXiv 2602.08986.

    """
    if mode not in MODES:
        raise ValueError(f"unknown weighting mode {mode!r}: known are {', '.join(MODES)}")
    if num_examples < 1:
        raise ValueError(f"node weights need at least one training example, found {num_examples}")
    if floor <= 0:
        raise ValueError(f"the floor of node weights must be above 0, found {floor}")
    if not len(counts) or not (counts >= 0).all():
        raise ValueError(
            f"counts must be at least 0, found {counts.min().item() if len(counts) else 'none'}"
        )
    counts = counts if counts.is_floating_point() else counts.float()
    classes = len(counts) if mode == "class-wise" else 2
    always_or_never = (counts == 0) | (counts == num_examples)
    raw = torch.where(always_or_never, 1.0, num_examples / (classes * counts.clamp(min=1)))
    lowest, highest = raw.min(), raw.max()
    if lowest == highest:
        return torch.ones_like(raw)
    return floor + highest * (raw - lowest) / (highest - lowest)


def released_counts(
    targets: Num[Tensor, "examples nodes"] | Bool[Tensor, "examples nodes"], hierarchy: Hierarchy
) -> Float[Tensor, " nodes"]:
    """The released code's node counts, in which examples of descendants count again.

    The targets are ancestor-closed already, so `n_j` includes the examples of all descendants; the
    released code then replaces `n_j` by the sum of `n_d` over `d ∈ D(j)`, node by node in our
    order and in place: where a shorter path to a root puts a descendant before its ancestor, the
    ancestor sums counts that are sums already. Only for the faithful replica.

    Args:
        targets: `[examples, nodes]`, 0/1, ancestor-closed.
        hierarchy: their hierarchy.

    Returns:
        `[nodes]`, float64; may exceed the number of examples.

    """
    counts = targets.double().sum(dim=0)
    for node in range(len(hierarchy)):
        counts[node] = counts[hierarchy.descendants(node)].sum()
    return counts
