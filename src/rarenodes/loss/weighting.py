"""Node weights: how much a node's examples count in the loss, by how rare the node is.

Also what else corrects for rarity in the loss: shifts of logits, and weights that depend on an
example's other labels.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from rarenodes.loss.hierarchy import Hierarchy

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
    counts = _checked(counts)
    classes = len(counts) if mode == "class-wise" else 2
    always_or_never = (counts == 0) | (counts == num_examples)
    raw = torch.where(always_or_never, 1.0, num_examples / (classes * counts.clamp(min=1)))
    lowest, highest = raw.min(), raw.max()
    if lowest == highest:
        return torch.ones_like(raw)
    return floor + highest * (raw - lowest) / (highest - lowest)


def effective_number_weights(
    counts: Num[Tensor, " nodes"], beta: float = 0.999
) -> Float[Tensor, " nodes"]:
    """Class-balanced weights: the inverse of a node's effective number of examples.

    The effective number `E_j = (1 − β^n_j) / (1 − β)` grows with every example, but ever less, as
    examples resemble earlier ones: it is at most `1 / (1 − β)`. The weights are `1 / E_j`, scaled to
    a mean of 1 over nodes with examples. `β = 0` weighs all nodes alike; `β → 1` in proportion to
    `1 / n_j`.

    Args:
        counts: `[nodes]`, positive training examples of each node, at least 0.
        beta: `β`, at least 0 and below 1.

    The original multiplies the whole loss of an example by the weight of its one class, the terms in
    which other classes are negative included. With several labels an example has no one class; its
    usual form there (Huang et al., EMNLP 2021, arXiv 2109.04712) multiplies every node's own loss by
    the node's weight, in positives as in negatives: use it as the weight of both classes.

    Returns:
        `[nodes]`, float64 where `counts` are, else float32; above 0. A node without examples gets
        1, which only its negatives can use.

    Raises:
        ValueError: counts that are negative, NaN or none, or a beta outside [0, 1).

    Source: Cui, Jia, Lin, Song and Belongie, CVPR 2019, arXiv 1901.05555.

    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be at least 0 and below 1, found {beta}")
    counts = _checked(counts)
    seen = counts > 0
    # The constant 1 − β cancels when scaled; 1 − β^n as expm1 keeps its digits where β is near 1.
    log_beta = math.log(beta) if beta > 0 else -math.inf
    inverse = -1 / torch.expm1(log_beta * torch.where(seen, counts, 1))
    return torch.where(seen, inverse / inverse[seen].mean(), 1.0)


def positive_ratio_weights(
    counts: Num[Tensor, " nodes"], num_examples: int, cap: float = 100.0
) -> Float[Tensor, " nodes"]:
    """Negatives per positive, `(N − n_j) / n_j`, at most `cap`: the usual `pos_weight`.

    On positives, and below the cap, it makes both classes of a node weigh the same in all.

    Args:
        counts: `[nodes]`, positive training examples of each node, in [0, N].
        num_examples: `N`, training examples.
        cap: the largest weight, above 0.

    Returns:
        `[nodes]`, float64 where `counts` are, else float32; in (0, max(cap, 1)]. 1 where `n_j` is 0,
        never used on positives, and where `n_j` is `N`: there is no other class to balance, and the
        formula's 0 would keep a node that is always positive, such as a root, from being learnt.

    Raises:
        ValueError: counts that are negative, above `N`, NaN or none, no examples, or a cap that is
            not above 0.

    """
    if not cap > 0:
        raise ValueError(f"the cap of weights must be above 0, found {cap}")
    counts = _checked(counts, num_examples)
    always_or_never = (counts == 0) | (counts == num_examples)
    ratio = (num_examples - counts) / torch.where(always_or_never, 1, counts)
    return torch.where(always_or_never, 1.0, ratio.clamp(max=cap))


def _class_wise(counts: Tensor, num_examples: int, *, floor: float = 0.25) -> Tensor:
    return node_weights(counts, num_examples, "class-wise", floor)


def _binary(counts: Tensor, num_examples: int, *, floor: float = 0.25) -> Tensor:
    return node_weights(counts, num_examples, "binary", floor)


def _effective_number(counts: Tensor, num_examples: int, *, beta: float = 0.999) -> Tensor:
    return effective_number_weights(counts, beta)


def _positive_ratio(counts: Tensor, num_examples: int, *, cap: float = 100.0) -> Tensor:
    return positive_ratio_weights(counts, num_examples, cap)


# Functions of counts `[nodes]` and the number of examples; options are their keyword-only arguments.
_WEIGHTINGS = {
    "class-wise": _class_wise,
    "binary": _binary,
    "effective-number": _effective_number,
    "positive-ratio": _positive_ratio,
}
WEIGHTINGS: Mapping[str, Callable[..., Float[Tensor, " nodes"]]] = MappingProxyType(_WEIGHTINGS)


def register_weighting(mode: str, function: Callable[..., Float[Tensor, " nodes"]]) -> None:
    """Make a formula known by name, here as in settings.

    Args:
        mode: its name.
        function: maps counts `[nodes]` and the number of examples to weights `[nodes]`, at least 0;
            its keyword-only arguments are the options, floats with defaults, whose ranges it checks
            (`ValueError`).

    Raises:
        ValueError: another formula has the name.

    """
    if _WEIGHTINGS.setdefault(mode, function) is not function:
        raise ValueError(f"there is a weighting mode {mode!r} already: take another name")


def check_mode(mode: str) -> str:
    """The mode itself, if it is a key of `WEIGHTINGS`.

    Raises:
        ValueError: it is not.

    """
    if mode not in WEIGHTINGS:
        raise ValueError(f"unknown weighting mode {mode!r}: known are {', '.join(WEIGHTINGS)}")
    return mode


def weights_by(
    mode: str, counts: Num[Tensor, " nodes"], num_examples: int, **options: object
) -> Float[Tensor, " nodes"]:
    """Node weights by the name of their formula.

    Args:
        mode: a key of `WEIGHTINGS`.
        counts: `[nodes]`, positive training examples of each node.
        num_examples: training examples.
        options: numbers, the formula's keyword-only arguments: `floor` of `class-wise` and
            `binary`, `beta` of `effective-number`, `cap` of `positive-ratio`.

    Returns:
        `[nodes]`.

    Raises:
        ValueError: an unknown mode or option, an option that is not a number, and what the formula
            refuses.

    """
    check_mode(mode)
    function = WEIGHTINGS[mode]
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for name, value in options.items():
        if name not in known:
            has = ", ".join(f"{k}={v}" for k, v in known.items())
            raise ValueError(f"weighting mode {mode!r} has no option {name!r}: it has {has}")
        if not isinstance(value, Real) or isinstance(value, bool):
            raise ValueError(
                f"option {name!r} of weighting mode {mode!r} must be a number, found {value!r}"
            )
    return function(counts, num_examples, **{k: float(v) for k, v in options.items()})


def logit_adjustment(
    counts: Num[Tensor, " nodes"], num_examples: int, strength: float = 1.0
) -> Float[Tensor, " nodes"]:
    """What to add to logits in the loss, so that they rank as if every node were half positive.

    `τ log(π_j / (1 − π_j))` with `π_j = n_j / N`: logit adjustment of each node as a problem of two
    classes. The loss is computed at `z + shift`; predictions use `z`. The shift of a rare node is
    negative, so its `z` is learnt larger by as much, and the node is predicted more readily.

    Args:
        counts: `[nodes]`, positive training examples of each node, in [0, N]. Clamped to
            [1/2, N − 1/2], which keeps nodes finite that are never or always positive.
        num_examples: `N`, training examples.
        strength: `τ`; 0 is no adjustment.

    Returns:
        `[nodes]`, float64 where `counts` are, else float32.

    Raises:
        ValueError: counts that are negative, above `N`, NaN or none, or no examples.

    Source: Menon et al., ICLR 2021, arXiv 2007.07314.

    """
    counts = _checked(counts, num_examples).clamp(0.5, num_examples - 0.5)
    return strength * (counts.log() - (num_examples - counts).log())


def tolerant_shift(
    counts: Num[Tensor, " nodes"], num_examples: int, kappa: float = 0.05
) -> Float[Tensor, " nodes"]:
    """The shift of the distribution-balanced loss, to be added to logits in the loss.

    The paper computes the loss at `z − ν_j`, with `ν_j = −κ b_j` and `b_j = −log(1 / π_j − 1)` the
    bias that alone fits the node's frequency `π_j = n_j / N`. So `κ log(π_j / (1 − π_j))` is added:
    logit adjustment of strength `κ`. It is negative for a rare node: in the loss its negatives look
    closer to done and its positives further from it, so its `z`, which predictions use, is learnt
    larger. (The paper's code has `κ = 0.05`, and divides the shift by the scale of
    `negative_tolerant`, too.)

    Args:
        counts: `[nodes]`, positive training examples of each node, in [0, N]; clamped to
            [1/2, N − 1/2].
        num_examples: `N`, training examples.
        kappa: `κ`.

    Returns:
        `[nodes]`, float64 where `counts` are, else float32.

    Raises:
        ValueError: as `logit_adjustment`.

    Source: Wu, Huang, Liu, Wang and Lin, ECCV 2020, arXiv 2007.09654.

    """
    return logit_adjustment(counts, num_examples, kappa)


@dataclass(frozen=True, eq=False)
class DistributionBalance:
    """Re-balancing weights of the distribution-balanced loss, by example and node.

    If examples were drawn by first drawing a node evenly, an example would be drawn through each of
    its labels. `r = P_C / P_I` compares how often node `j` alone wants it drawn, `P_C = 1 / (C n_j)`,
    with how often all its positive nodes together do, `P_I = (1 / C) Σ_{k: y_k = 1} 1 / n_k`. The
    weight is `α + sigmoid(β (r − μ))`, for negatives as for positives: a common node weighs little
    in an example that has rare labels.

    Attributes:
        counts: `[nodes]`, positive training examples of each node, at least 0.
        alpha: `α`, the least weight, at least 0.
        beta: `β`, how steeply weights rise with `r`, above 0.
        mu: `μ`, the `r` at which they are half up. The paper's code has 0.2 (COCO) and 0.3 (VOC).

    Raises:
        ValueError: counts that are negative, NaN or none, or a number out of its range.

    Source: Wu, Huang, Liu, Wang and Lin, ECCV 2020, arXiv 2007.09654.

    """

    counts: Num[Tensor, " nodes"]
    alpha: float = 0.1
    beta: float = 10.0
    mu: float = 0.2

    def __post_init__(self):
        _checked(self.counts)
        numbers = math.isfinite(self.alpha) and math.isfinite(self.beta) and math.isfinite(self.mu)
        if not numbers or self.alpha < 0 or self.beta <= 0:
            raise ValueError(
                "distribution balance needs alpha of at least 0, beta above 0 and a finite mu, found "
                f"{self.alpha}, {self.beta} and {self.mu}"
            )

    @cached_property
    def rarity(self) -> Float[Tensor, " nodes"]:
        """`1 / n_j`, infinite for nodes without examples."""
        return 1 / _checked(self.counts)

    def weight(
        self, targets: Num[Tensor, "batch nodes"] | Bool[Tensor, "batch nodes"]
    ) -> Float[Tensor, "batch nodes"]:
        """Weights of every example and node.

        Where a ratio is undefined it is taken as its limit, infinity, and the weight is the largest,
        `α + 1`: of all nodes in an example without a positive one, and of nodes without examples,
        which add nothing to `P_I` either.

        Args:
            targets: `[batch, nodes]`, 0/1.

        Returns:
            `[batch, nodes]`, in [`α`, `α + 1`]; float64 where the counts are, else float32.

        """
        rarity = self.rarity.to(targets.device)
        of_nodes = torch.where(rarity.isinf(), 0, rarity)
        of_examples = targets.to(rarity.dtype) @ of_nodes
        ratio = rarity / of_examples.unsqueeze(-1)
        return self.alpha + torch.sigmoid(self.beta * (ratio - self.mu))


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


def _checked(
    counts: Num[Tensor, " nodes"], num_examples: int | None = None
) -> Float[Tensor, " nodes"]:
    """Counts as floating point numbers, if they can be counts of that many examples."""
    if num_examples is not None and num_examples < 1:
        raise ValueError(f"node weights need at least one training example, found {num_examples}")
    if not len(counts) or not (counts >= 0).all():
        raise ValueError(
            f"counts must be at least 0, found {counts.min().item() if len(counts) else 'none'}"
        )
    if num_examples is not None and (counts > num_examples).any():
        raise ValueError(
            f"counts must be at most the {num_examples} examples, found {counts.max().item()}"
        )
    return counts if counts.is_floating_point() else counts.float()
