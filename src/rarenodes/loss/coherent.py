"""The coherent binary cross-entropy, and the weighted, focal loss for rare nodes built on it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rarenodes.loss.elements import bce
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.kernels import (
    COMPILED_KINDS,
    EdgePlan,
    focal_weights,
    fused_rare_node_loss,
    kernel_available,
)
from rarenodes.loss.output import Output
from rarenodes.loss.schedules import Moment, Schedule
from rarenodes.loss.targets import check_batch
from rarenodes.loss.uncertainty import check_kind, uncertainty

Logits = Float[Tensor, "members batch nodes"]
Targets = Tensor  # [batch, nodes], 0/1 or bool, ancestor-closed
Known = Tensor  # [batch, nodes], bool, true where targets are 1
Reduction = Literal["per example", "sum", "mean"]


def coherent_bce(logits: Logits, targets: Targets, hierarchy: Hierarchy) -> Logits:
    """Binary cross-entropy of coherent predictions, element by element.

    For a negative node the prediction is `max_{d ∈ D(j)} p_d`, for a positive one
    `max_{d ∈ D(j), y_d = 1} p_d`: a positive node may lean only on descendants that are positive
    too. The sigmoid is monotone, so the maximum is taken on logits, and the loss from them, which
    keeps it finite at any magnitude.

    Args:
        logits: `[members, batch, nodes]`, unconstrained.
        targets: `[batch, nodes]`, 0/1 or bool, ancestor-closed.
        hierarchy: the nodes' hierarchy.

    Returns:
        `[members, batch, nodes]`, at least 0.

    Raises:
        ValueError: shapes that do not fit, an empty batch, or targets that are not 0 or 1 or not
            closed.

    Source: MCLoss, Giunchiglia and Lukasiewicz, NeurIPS 2020.

    """
    check_batch(logits, targets, hierarchy)
    coherent = hierarchy.max_over_agreeing_descendants(logits, targets)
    return bce(coherent, targets)


@dataclass(frozen=True)
class Focal:
    """Focal weight from ensemble uncertainty: `floor + u^power`, with no gradient of its own.

    Attributes:
        uncertainty: a key of `rarenodes.loss.uncertainty.KINDS`.
        power: `κ`, above 0.
        floor: `φ`, the weight of an element the ensemble is sure of, at least 0.

    """

    uncertainty: str = "gmu"
    power: float = 1.0
    floor: float = 0.25

    def __post_init__(self):
        check_kind(self.uncertainty)
        if self.power <= 0 or self.floor < 0:
            raise ValueError(
                f"focal power must be above 0 and floor at least 0, found {self.power} and {self.floor}"
            )

    def weight(self, logits: Logits) -> Float[Tensor, "batch nodes"]:
        """Weight of every example and node, from the members' unconstrained logits."""
        # Half precision cannot hold the uncertainties' epsilon.
        wide = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
        members = torch.sigmoid(wide)
        return self.floor + uncertainty(members, self.uncertainty) ** self.power


class RareNodeLoss(nn.Module):
    """Coherent loss, weighted by node and by ensemble uncertainty.

    Element `(m, b, j)` is `coherent_bce` times the node's weight for its class times the focal
    weight of `(b, j)`. The sum over evaluated nodes is averaged over the batch and summed over
    members: a member's gradient depends neither on how many members train beside it (unless a
    focal term couples them) nor on the batch size.

    Args:
        hierarchy: the nodes' hierarchy.
        positive_weight: `[nodes]`, weights where the target is 1; None means 1.
        negative_weight: `[nodes]`, weights where the target is 0; None means 1.
        focal: the focal term, or None.
        evaluated: `[nodes]` bool, nodes that count; None means all. The others still pass their
            scores up.
        coherent: whether the maximum constraint is part of the loss; without it the loss is of each
            node's own logit, for networks that are made coherent only when they predict.
        element: what a logit costs given its target, element by element: binary cross-entropy, or
            another of `rarenodes.loss.elements`.
        shift: `[nodes]`, added to the coherent logits in the loss, not when predicting; None
            means 0.
        balance: gives a further weight `[batch, nodes]` from the targets; None means 1.
        mixture: `λ`, the share of this loss; the rest, `1 − λ`, is the same loss with no weights
            of any kind. In [0, 1].
        schedule: how node weights change while training, see `at`; None means they stay. One of
            both classes gives a class without weights those of 1 to start from.
        reduction: `per example` as above; or over members, examples and evaluated nodes the `sum`,
            as the released code of arXiv 2602.08986 does with a focal term, or the `mean`, as it
            does without one, weighted or not.
        output: how networks that are trained with it predict; None means by the maximum.

    Raises:
        ValueError: a weight, shift or mask that is not `[nodes]`, a weight that is negative, a
            mixture outside [0, 1], or an unknown reduction.

    """

    positive_weight: Tensor | None
    negative_weight: Tensor | None
    evaluated: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        hierarchy: Hierarchy,
        positive_weight: Float[Tensor, " nodes"] | None = None,
        negative_weight: Float[Tensor, " nodes"] | None = None,
        focal: Focal | None = None,
        evaluated: Bool[Tensor, " nodes"] | None = None,
        *,
        coherent: bool = True,
        element: Callable[[Logits, Targets], Logits] = bce,
        shift: Float[Tensor, " nodes"] | None = None,
        balance: Callable[[Targets], Float[Tensor, "batch nodes"]] | None = None,
        mixture: float = 1.0,
        schedule: Schedule | None = None,
        reduction: Reduction = "per example",
        output: Output | None = None,
    ):
        super().__init__()
        if not 0 <= mixture <= 1:
            raise ValueError(f"the mixture must be in [0, 1], found {mixture}")
        if reduction not in get_args(Reduction):
            raise ValueError(
                f"unknown reduction {reduction!r}: known are {', '.join(get_args(Reduction))}"
            )
        self.hierarchy = hierarchy
        self.focal = focal
        self.coherent = coherent
        self.element = element
        self.balance = balance
        self.mixture = mixture
        self.schedule = schedule
        self.reduction = reduction
        self.output = Output() if output is None else output
        weights = {"positive_weight": positive_weight, "negative_weight": negative_weight}
        given = [value for value in weights.values() if value is not None]
        if schedule is not None and schedule.classes == "both" and given:
            # A class without weights has 1 to start from.
            one = torch.ones_like(given[0])
            weights = {name: one if value is None else value for name, value in weights.items()}
        for name, value in weights.items():
            _check_per_node(name, value, len(hierarchy))
            _check_weight(name, value)
            self.register_buffer(name, value)
            # Where a schedule starts from.
            self.register_buffer(f"first_{name}", value, persistent=False)
        for name, value in {"evaluated": evaluated, "shift": shift}.items():
            _check_per_node(name, value, len(hierarchy))
            self.register_buffer(name, value)

    def at(self, moment: Moment) -> None:
        """Set the node weights to what the schedule says of this moment of the training."""
        if self.schedule is None:
            return
        for name in ("positive_weight", "negative_weight"):
            first = getattr(self, f"first_{name}")
            if first is not None:
                setattr(self, name, self.schedule.weights(first, moment))

    def forward(
        self, logits: Logits, targets: Targets, known: Known | None = None
    ) -> Float[Tensor, ""]:
        """Loss of a batch.

        Binary cross-entropy on the CPU in single precision is computed with its gradient in one
        pass by a compiled kernel; everything else is the sum of `elements`, which is also what the
        kernel is tested against.

        Args:
            logits: `[members, batch, nodes]`.
            targets: `[batch, nodes]`, 0/1 or bool, ancestor-closed.
            known: `[batch, nodes]` bool, where it is known whether the example belongs to the node;
                elsewhere the loss is 0 and targets must be, and nodes below one that is known to be
                negative must be known. None means everywhere.

        Returns:
            Scalar. A mean counts what is unknown as 0.

        Raises:
            ValueError: shapes that do not fit, an empty batch, or targets that are not 0 or 1 or
                not closed, or positive where they are unknown.

        """
        check_batch(logits, targets, self.hierarchy, known)
        by_tensors = self.element is not bce or self.shift is not None or self.balance is not None
        if by_tensors or not kernel_available(logits):
            return self._reduced(logits, targets, known)
        return self._by_kernel(logits, targets, known)

    def _by_kernel(
        self, logits: Logits, targets: Targets, known: Known | None
    ) -> Float[Tensor, ""]:
        loss = self._fused(logits, targets, known, weighted=True) if self.mixture > 0 else 0.0
        if self.mixture < 1:
            unweighted = self._fused(logits, targets, known, weighted=False)
            loss = self.mixture * loss + (1 - self.mixture) * unweighted
        return loss if self.reduction == "per example" else loss * self._scale(logits)

    def reference(
        self, logits: Logits, targets: Targets, known: Known | None = None
    ) -> Float[Tensor, ""]:
        """The same loss by tensor operations, on any device and in any precision."""
        check_batch(logits, targets, self.hierarchy, known)
        return self._reduced(logits, targets, known)

    def _reduced(self, logits: Logits, targets: Targets, known: Known | None) -> Float[Tensor, ""]:
        loss = self._elements(logits, targets, known)
        if self.evaluated is not None:
            loss = loss[..., self.evaluated]
        return loss.sum(dim=-1).mean(dim=-1).sum() * self._scale(logits)

    def elements(self, logits: Logits, targets: Targets, known: Known | None = None) -> Logits:
        """Weighted loss of every member, example and node, evaluated or not."""
        check_batch(logits, targets, self.hierarchy, known)
        return self._elements(logits, targets, known)

    def _elements(self, logits: Logits, targets: Targets, known: Known | None) -> Logits:
        scores = logits
        if self.coherent:
            scores = self.hierarchy.max_over_agreeing_descendants(logits, targets)
        if self.shift is not None:
            scores = scores + self.shift.to(scores)
        loss = self.element(scores, targets)
        return self._weighted(loss, logits, targets, known)

    def _weighted(
        self, loss: Logits, logits: Logits, targets: Targets, known: Known | None
    ) -> Logits:
        weight = self.element_weight(logits, targets)
        loss = loss if weight is None else loss * weight
        # Chosen, not multiplied: what is left out has no gradient, however large its loss.
        return loss if known is None else torch.where(known, loss, 0)

    def element_weight(
        self, logits: Logits, targets: Targets
    ) -> Float[Tensor, "batch nodes"] | None:
        """What multiplies the loss of each example and node, or None where that is 1 everywhere.

        The product of node weight, focal weight and balance, mixed with 1.
        """
        factors = []
        if self.positive_weight is not None or self.negative_weight is not None:
            one = logits.new_ones(())
            positive = one if self.positive_weight is None else self.positive_weight.to(logits)
            negative = one if self.negative_weight is None else self.negative_weight.to(logits)
            factors.append(torch.where(targets.bool(), positive, negative))
        if self.focal is not None:
            factors.append(self.focal.weight(logits))
        if self.balance is not None:
            factors.append(self.balance(targets).to(logits))
        if not factors:
            return None
        weight = math.prod(factors)
        return weight if self.mixture == 1 else self.mixture * weight + (1 - self.mixture)

    def _fused(
        self, logits: Logits, targets: Targets, known: Known | None, *, weighted: bool
    ) -> Float[Tensor, ""]:
        factor = self._focal_factor(logits) if weighted else None
        if known is not None:
            known = known.to(logits)
            factor = known if factor is None else factor * known
        return fused_rare_node_loss(
            logits,
            targets,
            EdgePlan.of(self.hierarchy),
            self.positive_weight if weighted else None,
            self.negative_weight if weighted else None,
            factor,
            self.evaluated,
            coherent=self.coherent,
        )

    def _focal_factor(self, logits: Logits) -> Float[Tensor, "batch nodes"] | None:
        """The focal weight, compiled where its uncertainty is."""
        if self.focal is None or self.focal.uncertainty not in COMPILED_KINDS:
            return None if self.focal is None else self.focal.weight(logits)
        return focal_weights(logits, self.focal.uncertainty, self.focal.power, self.focal.floor)

    def _scale(self, logits: Logits) -> float:
        """From the sum over nodes and members of the mean over examples to the reduction asked."""
        members, batch, nodes = logits.shape
        if self.reduction == "per example":
            return 1.0
        if self.reduction == "sum":
            return float(batch)
        return 1 / (members * (nodes if self.evaluated is None else int(self.evaluated.sum())))


def _check_per_node(name: str, value: Tensor | None, nodes: int) -> None:
    if value is None:
        return
    if tuple(value.shape) != (nodes,):
        raise ValueError(f"{name} must have shape ({nodes},), found {tuple(value.shape)}")


def _check_weight(name: str, value: Tensor | None) -> None:
    if value is not None and not (value >= 0).all():
        raise ValueError(f"{name} must be at least 0, found {value.min().item()}")
