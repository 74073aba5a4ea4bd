"""The coherent binary cross-entropy, and the weighted, focal loss for rare nodes built on it."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from rarenodes.hierarchy import Hierarchy
from rarenodes.kernels import EdgePlan, fused_rare_node_loss, kernel_available
from rarenodes.uncertainty import KINDS, uncertainty

Logits = Float[Tensor, "members batch nodes"]
Targets = Tensor  # [batch, nodes], 0/1 or bool, ancestor-closed


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
        ValueError: a last dimension is not the number of nodes.

    Source: MCLoss, Giunchiglia and Lukasiewicz, NeurIPS 2020.

    """
    coherent = hierarchy.max_over_agreeing_descendants(logits, targets)
    return bce(coherent, targets)


def bce(logits: Logits, targets: Targets) -> Logits:
    """Plain binary cross-entropy from logits `[..., batch, nodes]`, element by element."""
    targets = targets.to(logits.dtype).expand_as(logits)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


@dataclass(frozen=True)
class Focal:
    """Focal weight from ensemble uncertainty: `floor + u^power`, with no gradient of its own.

    Attributes:
        uncertainty: a key of `rarenodes.uncertainty.KINDS`.
        power: `κ`, above 0.
        floor: `φ`, the weight of an element the ensemble is sure of, at least 0.

    """

    uncertainty: str = "gmu"
    power: float = 1.0
    floor: float = 0.25

    def __post_init__(self):
        if self.uncertainty not in KINDS:
            raise ValueError(
                f"unknown uncertainty {self.uncertainty!r}: known are {', '.join(KINDS)}"
            )
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
        coherent: whether the maximum constraint is part of the loss; without it this is plain
            binary cross-entropy, for networks that are made coherent only when they predict.

    Raises:
        ValueError: a weight or mask that is not `[nodes]`, or a weight that is negative.

    """

    positive_weight: Tensor | None
    negative_weight: Tensor | None
    evaluated: Tensor | None

    def __init__(
        self,
        hierarchy: Hierarchy,
        positive_weight: Float[Tensor, " nodes"] | None = None,
        negative_weight: Float[Tensor, " nodes"] | None = None,
        focal: Focal | None = None,
        evaluated: Bool[Tensor, " nodes"] | None = None,
        *,
        coherent: bool = True,
    ):
        super().__init__()
        self.hierarchy = hierarchy
        self.focal = focal
        self.coherent = coherent
        named = {
            "positive_weight": positive_weight,
            "negative_weight": negative_weight,
            "evaluated": evaluated,
        }
        for name, value in named.items():
            _check_per_node(name, value, len(hierarchy))
            self.register_buffer(name, value)

    def forward(self, logits: Logits, targets: Targets) -> Float[Tensor, ""]:
        """Loss of a batch: logits `[members, batch, nodes]`, targets `[batch, nodes]` → scalar.

        On the CPU in single precision a compiled kernel computes it with its gradient in one pass;
        elsewhere it is the sum of `elements`, which is also what the kernel is tested against.
        """
        if kernel_available(logits):
            focal = self.focal
            return fused_rare_node_loss(
                logits,
                targets,
                EdgePlan.of(self.hierarchy),
                self.positive_weight,
                self.negative_weight,
                None if focal is None else (focal.uncertainty, focal.power, focal.floor),
                self.evaluated,
                coherent=self.coherent,
            )
        return self.reference(logits, targets)

    def reference(self, logits: Logits, targets: Targets) -> Float[Tensor, ""]:
        """The same loss by tensor operations, on any device and in any precision."""
        loss = self.elements(logits, targets)
        if self.evaluated is not None:
            loss = loss[..., self.evaluated]
        return loss.sum(dim=-1).mean(dim=-1).sum()

    def elements(self, logits: Logits, targets: Targets) -> Logits:
        """Weighted loss of every member, example and node, evaluated or not."""
        _check_batch(logits, targets, len(self.hierarchy))
        if self.coherent:
            loss = coherent_bce(logits, targets, self.hierarchy)
        else:
            loss = bce(logits, targets)
        weight = self.element_weight(logits, targets)
        return loss if weight is None else loss * weight

    def element_weight(
        self, logits: Logits, targets: Targets
    ) -> Float[Tensor, "batch nodes"] | None:
        """Product of node weight and focal weight `[batch, nodes]`, or None where all are 1."""
        weight = None
        if self.positive_weight is not None or self.negative_weight is not None:
            one = logits.new_ones(())
            positive = one if self.positive_weight is None else self.positive_weight.to(logits)
            negative = one if self.negative_weight is None else self.negative_weight.to(logits)
            weight = torch.where(targets.bool(), positive, negative)
        if self.focal is not None:
            focal = self.focal.weight(logits)
            weight = focal if weight is None else weight * focal
        return weight


def _check_batch(logits: Tensor, targets: Tensor, nodes: int) -> None:
    fits = logits.ndim == 3 and logits.shape[2] == nodes and logits.shape[1:] == targets.shape
    if not fits or targets.numel() == 0:
        raise ValueError(
            f"logits [members, batch, nodes] and targets [batch, nodes] must fit each other and the "
            f"{nodes} nodes of the hierarchy, found {tuple(logits.shape)} and {tuple(targets.shape)}"
        )


def _check_per_node(name: str, value: Tensor | None, nodes: int) -> None:
    if value is None:
        return
    if tuple(value.shape) != (nodes,):
        raise ValueError(f"{name} must have shape ({nodes},), found {tuple(value.shape)}")
    if value.is_floating_point() and not (value >= 0).all():
        raise ValueError(f"{name} must be at least 0, found {value.min().item()}")
