"""What a logit costs given its target, element by element, one function per loss.

All take logits `[members, batch, nodes]` and targets `[batch, nodes]`, 0/1 or bool, refuse others
(`check_zero_one`), and return `[members, batch, nodes]`, at least 0, neither weighted nor reduced. Whether the logits are coherent
they do not know. Everything is computed from logits: values and gradients are finite at any
magnitude. `z` is a logit, `p = sigmoid(z)`.

A loss declares its options as keyword-only arguments, each annotated with its range, which
`element_loss` checks once, so that no step of a training has to.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Real
from types import MappingProxyType
from typing import Annotated, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Logits = Float[Tensor, "members batch nodes"]
Targets = Tensor  # [batch, nodes], 0/1 or bool
ElementLoss = Callable[[Logits, Targets], Logits]


@dataclass(frozen=True)
class Range:
    """Values that an option may take, in words and as a test of a finite number."""

    words: str
    holds: Callable[[float], bool]
    none_too: bool = False


NotNegative = Annotated[float, Range("at least 0", lambda value: value >= 0)]
Positive = Annotated[float, Range("above 0", lambda value: value > 0)]
BelowOne = Annotated[float, Range("at least 0 and below 1", lambda value: 0 <= value < 1)]
ShareOrNone = Annotated[
    float | None, Range("above 0 and below 1, or none", lambda value: 0 < value < 1, True)
]


def check_zero_one(targets: Tensor) -> None:
    """Refuse targets, of any shape, that are not 0 or 1.

    Raises:
        ValueError: names the first other value.

    """
    if targets.dtype == torch.bool:
        return
    wrong = (targets != 0) & (targets != 1)  # holds of NaN too
    if wrong.any():
        raise ValueError(f"targets must be 0 or 1, found {targets[wrong][0].item()}")


def bce(logits: Logits, targets: Targets) -> Logits:
    """Binary cross-entropy: `−log p` of a positive, `−log(1 − p)` of a negative."""
    check_zero_one(targets)
    targets = targets.to(logits.dtype).expand_as(logits)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(
    logits: Logits, targets: Targets, *, gamma: NotNegative = 2.0, alpha: ShareOrNone = None
) -> Logits:
    """Focal loss: `−a (1 − q)^γ log q`, `q` the member's probability of what is true.

    What a member is sure of and right about counts little. Unlike `rarenodes.loss.coherent.Focal` it sees
    the target and each member alone, and the gradient also flows through the factor `(1 − q)^γ`.

    Args:
        logits: `[members, batch, nodes]`.
        targets: `[batch, nodes]`.
        gamma: `γ`, at least 0; 0 is binary cross-entropy.
        alpha: `a` of positives, above 0 and below 1; negatives get `1 − alpha`. None: `a = 1`.

    Returns:
        `[members, batch, nodes]`.

    Source: Lin, Goyal, Girshick, He and Dollár, ICCV 2017, arXiv 1708.02002.

    """
    check_zero_one(targets)
    positive = targets.bool()
    # q = sigmoid(right) and 1 − q = sigmoid(−right), so both logarithms are exact.
    right = torch.where(positive, logits, -logits)
    loss = -functional.logsigmoid(right) * torch.exp(gamma * functional.logsigmoid(-right))
    return loss if alpha is None else loss * torch.where(positive, alpha, 1 - alpha)


def asymmetric(
    logits: Logits,
    targets: Targets,
    *,
    positive_gamma: NotNegative = 0.0,
    negative_gamma: NotNegative = 4.0,
    margin: BelowOne = 0.05,
) -> Logits:
    """Asymmetric loss: negatives are focused on more than positives, and easy ones dropped.

    A positive costs `−(1 − p)^γ₊ log p`; a negative `−p_m^γ₋ log(1 − p_m)` with
    `p_m = max(p − m, 0)`, so that it costs nothing up to `p = m`. With `m > 0` the gradient of a
    negative vanishes also where `p` is near 1: the paper takes such negatives for mislabelled.

    Args:
        logits: `[members, batch, nodes]`.
        targets: `[batch, nodes]`.
        positive_gamma: `γ₊`, at least 0. The paper trains with 0; its code defaults to 1.
        negative_gamma: `γ₋`, at least 0.
        margin: `m`, at least 0 and below 1.

    Returns:
        `[members, batch, nodes]`.

    Source: Ridnik, Ben-Baruch et al., ICCV 2021, arXiv 2009.14119.

    """
    check_zero_one(targets)
    log_p, log_not_p = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    positive = -log_p * torch.exp(positive_gamma * log_not_p)
    # Without a margin, logarithms alone keep a negative with p near 1 finite.
    if margin < torch.finfo(logits.dtype).tiny:
        negative = -log_not_p * torch.exp(negative_gamma * log_p)
    else:
        left = torch.sigmoid(-logits) + margin  # 1 − p_m where that is below 1
        beyond = left < 1
        # At p_m = 0 a power below 1 has an infinite gradient, also where it is not selected.
        left = torch.where(beyond, left, 0.5)
        negative = torch.where(beyond, -torch.log(left) * (1 - left) ** negative_gamma, 0.0)
    return torch.where(targets.bool(), positive, negative)


def negative_tolerant(
    logits: Logits,
    targets: Targets,
    *,
    scale: Positive = 5.0,
    gamma: NotNegative = 0.0,
    factor: Positive = 1.0,
) -> Logits:
    """Negative-tolerant loss: `log(1 + e^−z)` of a positive, `log(1 + e^{λz}) / λ` of a negative.

    The larger `λ`, the sooner the gradient of a negative vanishes below `z = 0`: nodes with few
    positives are not pushed down without end. With `γ` above 0 both are multiplied by
    `f (1 − q)^γ`, the focal factor, where `q` is `sigmoid(z)` of a positive and `sigmoid(−λz)` of a
    negative. One part of the distribution-balanced loss; the others are `tolerant_shift` and
    `DistributionBalance` of `rarenodes.loss.weighting`.

    Args:
        logits: `[members, batch, nodes]`, the shift already added.
        targets: `[batch, nodes]`.
        scale: `λ`, above 0; 1 is binary cross-entropy. The paper's code has 2 (COCO) and 5 (VOC).
        gamma: `γ`, at least 0; 0 is the loss without a focal factor. The paper's code has 2.
        factor: `f`, above 0. The paper's code has 2.

    Returns:
        `[members, batch, nodes]`.

    Source: Wu, Huang, Liu, Wang and Lin, ECCV 2020, arXiv 2007.09654.

    """
    check_zero_one(targets)
    positive = targets.bool()
    # q = sigmoid(right) and 1 − q = sigmoid(−right), so both logarithms are exact.
    right = torch.where(positive, logits, -scale * logits)
    whole = -factor * functional.logsigmoid(right)
    loss = torch.where(positive, whole, whole / scale)
    return loss if gamma == 0 else loss * torch.exp(gamma * functional.logsigmoid(-right))


ELEMENT_LOSSES: Mapping[str, ElementLoss] = MappingProxyType(
    {f.__name__: f for f in (bce, focal, asymmetric, negative_tolerant)}
)


def element_loss(name: str, **options: object) -> ElementLoss:
    """A loss by name, with its options set.

    Args:
        name: a key of `ELEMENT_LOSSES`.
        options: the loss's keyword-only arguments, where they differ from its defaults; numbers of
            any type.

    Returns:
        A function of logits `[members, batch, nodes]` and targets `[batch, nodes]`; without options
        the very function in `ELEMENT_LOSSES`.

    Raises:
        ValueError: an unknown name or option, or a value out of its range.

    """
    if name not in ELEMENT_LOSSES:
        raise ValueError(f"unknown element loss {name!r}: known are {', '.join(ELEMENT_LOSSES)}")
    function = ELEMENT_LOSSES[name]
    known = {
        key: parameter
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for key, value in options.items():
        if key not in known:
            has = ", ".join(f"{k}={p.default}" for k, p in known.items()) or "none"
            raise ValueError(f"element loss {name!r} has no option {key!r}: its options are {has}")
        _check_range(name, key, value, get_args(known[key].annotation)[1])
    if not options:
        return function
    return partial(function, **{k: v if v is None else float(v) for k, v in options.items()})


def _check_range(name: str, key: str, value: object, allowed: Range) -> None:
    if value is None and allowed.none_too:
        return
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not allowed.holds(value):
        raise ValueError(
            f"option {key!r} of element loss {name!r} must be {allowed.words}, found {value!r}"
        )
