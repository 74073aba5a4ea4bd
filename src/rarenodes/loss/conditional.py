"""Conditional training: each node is learnt where its parents hold, and multiplied down the paths.

A logit stands for the probability of a node given all its parents, `q_j = sigmoid(z_j) =
P(j | all parents of j)`. A rare node then competes with the examples of its parents alone: its
imbalance falls from `n_j / N` to `n_j / n_parent`. With several parents, `n_parent` counts the
examples that are positive in all of them; a root's is the number of examples.

Sources: local classifiers on a shared network, with conditional and unconditional probabilities
(HLCP and HLUP): Chen, Miao, Xu, Hager and Harrison, *Deep Hierarchical Multi-label Classification
of Chest X-ray Images*, MIDL 2019; a softmax over siblings: Redmon and Farhadi, CVPR 2017; probabilistic
label trees: Jasinska et al., ICML 2016.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor
from torch.nn import functional

from rarenodes.loss.coherent import Focal, RareNodeLoss, Reduction
from rarenodes.loss.elements import bce
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.kernels import kernel_available
from rarenodes.loss.output import Output
from rarenodes.loss.schedules import Moment, Schedule
from rarenodes.loss.targets import check_batch
from rarenodes.loss.topdown import PRODUCT_OF_LOGITS, SUM, TopDownPlan, top_down

Logits = Float[Tensor, "members batch nodes"]
Targets = Tensor  # [batch, nodes], 0/1 or bool, ancestor-closed
Known = Tensor  # [batch, nodes], bool, true where targets are 1
OBJECTIVES = ("conditional", "unconditional")
# What rows of the last layer do at rest; see `rarenodes.training.sparse_layer`.
AT_REST = ("still", "moving")


def conditional_bce(logits: Logits, targets: Targets, hierarchy: Hierarchy) -> Logits:
    """Binary cross-entropy of each node given its parents, 0 where not all parents are positive.

    `−y_j log q_j − (1 − y_j) log(1 − q_j)` where every parent of `j` is positive, which roots always
    count as; else 0, with no gradient.

    Args:
        logits: `[members, batch, nodes]`, of `q_j`.
        targets: `[batch, nodes]`, 0/1 or bool, ancestor-closed.
        hierarchy: the nodes' hierarchy.

    Returns:
        `[members, batch, nodes]`, at least 0, finite at any magnitude of the logits.

    Raises:
        ValueError: shapes that do not fit, or targets that are not 0 or 1 or not closed.

    Source: HLCP, Chen et al., MIDL 2019.

    """
    check_batch(logits, targets, hierarchy)
    return torch.where(active(targets, hierarchy), bce(logits, targets), 0)


def conditional_log_probabilities(
    logits: Float[Tensor, "*batch nodes"], hierarchy: Hierarchy
) -> Float[Tensor, "*batch nodes"]:
    """Logarithms of the nodes' probabilities: `log p_j = log q_j + min over parents k of log p_k`.

    In a tree that is the product along the path from the root. In a DAG a node cannot be likelier
    than its least likely parent.

    Args:
        logits: `[..., nodes]`, of `q_j`.
        hierarchy: the nodes' hierarchy.

    Returns:
        `[..., nodes]`, at most 0, coherent, differentiable (see `rarenodes.loss.topdown`).

    Raises:
        ValueError: the last dimension is not the number of nodes.

    """
    return top_down(functional.logsigmoid(logits), TopDownPlan.of(hierarchy), SUM)


def unconditional_logits(
    logits: Float[Tensor, "*batch nodes"], hierarchy: Hierarchy
) -> Float[Tensor, "*batch nodes"]:
    """Logits of the probabilities whose logarithms `conditional_log_probabilities` gives.

    They say both `log p_j` and `log(1 − p_j)` exactly at any magnitude; of the logarithm of a
    probability near 1 nothing is left in single precision.

    Args:
        logits: `[..., nodes]`, of `q_j`.
        hierarchy: the nodes' hierarchy.

    Returns:
        `[..., nodes]`, coherent, differentiable.

    Raises:
        ValueError: the last dimension is not the number of nodes.

    """
    hierarchy.check_last_dimension(logits)
    return top_down(logits, TopDownPlan.of(hierarchy), PRODUCT_OF_LOGITS)


def unconditional_bce(logits: Logits, targets: Targets, hierarchy: Hierarchy) -> Logits:
    """Binary cross-entropy of the nodes' probabilities: `−y_j log p_j − (1 − y_j) log(1 − p_j)`.

    All examples count for all nodes, and the gradient of a node reaches its ancestors.

    Args:
        logits: `[members, batch, nodes]`, of `q_j`.
        targets: `[batch, nodes]`, 0/1 or bool, ancestor-closed.
        hierarchy: the nodes' hierarchy.

    Returns:
        `[members, batch, nodes]`, at least 0, finite at any magnitude of the logits.

    Raises:
        ValueError: shapes that do not fit, or targets that are not 0 or 1 or not closed.

    Source: HLUP, Chen et al., MIDL 2019.

    """
    check_batch(logits, targets, hierarchy)
    return bce(unconditional_logits(logits, hierarchy), targets)


def active(
    targets: Num[Tensor, "*batch nodes"] | Bool[Tensor, "*batch nodes"], hierarchy: Hierarchy
) -> Bool[Tensor, "*batch nodes"]:
    """Where all parents of a node are positive; a root has none, so it is active everywhere.

    Args:
        targets: `[..., nodes]`, 0/1 or bool.
        hierarchy: the nodes' hierarchy.

    Returns:
        `[..., nodes]`, bool.

    Raises:
        ValueError: the last dimension is not the number of nodes.

    """
    hierarchy.check_last_dimension(targets)
    # Nodes first: rows are then copied whole.
    positive = targets.movedim(-1, 0).bool().contiguous()
    found = torch.ones_like(positive)
    for level in TopDownPlan.of(hierarchy).levels_for(targets.device):
        found[level.single] = positive[level.parent]
        if len(level.several):
            both = positive[level.first]
            for at, parent in level.more:
                both[at] &= positive[parent]
            found[level.several] = both
    return found.movedim(0, -1)


def conditional_counts(
    targets: Num[Tensor, "examples nodes"] | Bool[Tensor, "examples nodes"], hierarchy: Hierarchy
) -> Int[Tensor, " nodes"]:
    """`n_parent` of every node: examples that are positive in all its parents; all, for a root.

    Args:
        targets: `[examples, nodes]`, 0/1 or bool, ancestor-closed.
        hierarchy: the nodes' hierarchy.

    Returns:
        `[nodes]`, int64.

    """
    return active(targets, hierarchy).sum(dim=0)


def conditional_frequency(
    counts: Num[Tensor, " nodes"], parent_counts: Num[Tensor, " nodes"]
) -> Float[Tensor, " nodes"]:
    """How often a node holds where its parents do: `(n_j + ½) / (n_parent + 1)`, never 0 or 1.

    Args:
        counts: `[nodes]`, `n_j`, positive training examples of each node.
        parent_counts: `[nodes]`, `n_parent`, see `conditional_counts`; at least `n_j`.

    Returns:
        `[nodes]`, in (0, 1), float64.

    Raises:
        ValueError: a count below 0, or above its parents'.

    """
    counts, parent_counts = counts.double(), parent_counts.double()
    wrong = ((counts < 0) | (counts > parent_counts)).nonzero()
    if len(wrong):
        j = int(wrong[0])
        raise ValueError(
            f"a node's count must be at least 0 and at most its parents', found {counts[j]:g} of "
            f"{parent_counts[j]:g} at node {j}; are the targets ancestor-closed?"
        )
    return (counts + 0.5) / (parent_counts + 1)


def conditional_prior(
    counts: Num[Tensor, " nodes"], parent_counts: Num[Tensor, " nodes"], strength: float = 1.0
) -> Float[Tensor, " nodes"]:
    """What to add to `z_j` in the loss, not when predicting: the log odds of `conditional_frequency`.

    A network that says nothing then starts from how often a node holds among its parents'
    examples; predictions leave that out, so a rare node is predicted more readily.

    Args:
        counts: `[nodes]`, `n_j`.
        parent_counts: `[nodes]`, `n_parent`.
        strength: what the log odds are multiplied by.

    Returns:
        `[nodes]`, float64, finite.

    Raises:
        ValueError: as `conditional_frequency`.

    """
    return strength * torch.logit(conditional_frequency(counts, parent_counts))


class ConditionalLoss(RareNodeLoss):
    """Conditional or unconditional loss, weighted by node and by ensemble uncertainty.

    Element `(m, b, j)` is `conditional_bce` or `unconditional_bce` times the weights that
    `RareNodeLoss` has, reduced as there. The focal weight is from the members' uncertainty about
    what the element asks: `q_j`, or `p_j`.

    The conditional loss computes nothing where it is 0: its cost is that of the children of positive
    nodes.

    Args:
        hierarchy: the nodes' hierarchy.
        positive_weight: `[nodes]`, weights where the target is 1; None means 1.
        negative_weight: `[nodes]`, weights where the target is 0; None means 1.
        focal: the focal term, or None.
        evaluated: `[nodes]` bool, nodes that count; None means all. Their ancestors count, too: what
            is not learnt of a root would multiply the probability of every node below it.
        objective: `conditional` or `unconditional`.
        conditional_first: of the unconditional loss, the share of epochs, from the first on, in
            which the conditional one stands in for it, see `at`; in [0, 1).
        element: what a logit of `q_j` or `p_j` costs given its target.
        shift: `[nodes]`, added to the logits of `q_j` in the loss, not when predicting; None means
            0.
        balance: as in `RareNodeLoss`.
        mixture: as in `RareNodeLoss`.
        schedule: as in `RareNodeLoss`.
        reduction: as in `RareNodeLoss`.
        output: how networks that are trained with it predict; None means by the product.
        sparse: for networks of which each step trains, of the last layer, the active nodes' rows
            alone: what the others do, `still` or `moving`. None trains all rows. The loss is the
            same.

    Raises:
        ValueError: as `RareNodeLoss`; an unknown objective, a share outside [0, 1), or one without
            the unconditional loss; sparse training of what has a value where no node is active, or
            another element loss, balance or reduction.

    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        positive_weight: Float[Tensor, " nodes"] | None = None,
        negative_weight: Float[Tensor, " nodes"] | None = None,
        focal: Focal | None = None,
        evaluated: Bool[Tensor, " nodes"] | None = None,
        *,
        objective: str = "conditional",
        conditional_first: float = 0.0,
        element: Callable[[Logits, Targets], Logits] = bce,
        shift: Float[Tensor, " nodes"] | None = None,
        balance: Callable[[Targets], Float[Tensor, "batch nodes"]] | None = None,
        mixture: float = 1.0,
        schedule: Schedule | None = None,
        reduction: Reduction = "per example",
        output: Output | None = None,
        sparse: str | None = None,
    ):
        if objective not in OBJECTIVES:
            raise ValueError(f"unknown objective {objective!r}: known are {', '.join(OBJECTIVES)}")
        if not 0 <= conditional_first < 1:
            raise ValueError(
                f"conditional_first must be at least 0 and below 1, found {conditional_first}"
            )
        if conditional_first > 0 and objective == "conditional":
            raise ValueError("conditional_first is of the unconditional objective alone")
        if sparse is not None:
            _check_sparse(sparse, objective, element, balance, reduction)
        super().__init__(
            hierarchy,
            positive_weight,
            negative_weight,
            focal,
            None if evaluated is None else hierarchy.close(evaluated).to(evaluated),
            coherent=False,
            element=element,
            shift=shift,
            balance=balance,
            mixture=mixture,
            schedule=schedule,
            reduction=reduction,
            output=Output("product") if output is None else output,
        )
        self.objective = objective
        self.conditional_first = conditional_first
        self.sparse = sparse
        self.conditional_now = objective == "conditional" or conditional_first > 0

    def at(self, moment: Moment) -> None:
        """Set node weights and objective to those of this moment of the training."""
        super().at(moment)
        first = moment.epoch < self.conditional_first * moment.epochs
        self.conditional_now = self.objective == "conditional" or first

    def forward(
        self, logits: Logits, targets: Targets, known: Known | None = None
    ) -> Float[Tensor, ""]:
        """Loss of a batch, as that of `RareNodeLoss`."""
        check_batch(logits, targets, self.hierarchy, known)
        if self.conditional_now:
            return self._where_active(logits, targets, known)
        # The kernel takes the uncertainty from the logits whose loss it computes.
        by_tensors = self.element is not bce or self.balance is not None
        by_tensors = by_tensors or (self.focal is not None and self.shift is not None)
        if by_tensors or not kernel_available(logits):
            return self._reduced(logits, targets, known)
        shifted = logits if self.shift is None else logits + self.shift.to(logits)
        return self._by_kernel(unconditional_logits(shifted, self.hierarchy), targets, known)

    def _elements(self, logits: Logits, targets: Targets, known: Known | None) -> Logits:
        shifted = logits if self.shift is None else logits + self.shift.to(logits)
        if self.conditional_now:
            loss = self.element(shifted, targets)
            loss = torch.where(active(targets, self.hierarchy), loss, 0)
            asked = logits
        else:
            loss = self.element(unconditional_logits(shifted, self.hierarchy), targets)
            asked = logits
            if self.focal is not None:
                asked = unconditional_logits(logits.detach(), self.hierarchy)
        return self._weighted(loss, asked, targets, known)

    def _where_active(
        self, logits: Logits, targets: Targets, known: Known | None
    ) -> Float[Tensor, ""]:
        """The conditional loss, from the `pairs` of an example and a node that are not 0 in it."""
        members, batch, nodes = logits.shape
        asked = active(targets, self.hierarchy)
        if self.evaluated is not None:
            asked = asked & self.evaluated
        if known is not None:
            asked = asked & known
        pairs = asked.reshape(-1).nonzero().squeeze(1)
        node = pairs % nodes
        # [members, 1, pairs] and [1, pairs]: to the element loss, one example of many nodes.
        scores = logits.reshape(members, -1).gather(1, pairs.expand(members, -1)).unsqueeze(1)
        asked_targets = targets.reshape(-1)[pairs].unsqueeze(0)
        shifted = scores if self.shift is None else scores + self.shift.to(logits)[node]
        loss = self.element(shifted, asked_targets)
        balance = None
        if self.balance is not None:
            balance = self.balance(targets).to(scores).reshape(-1)[pairs]
        weight = self.weight_of_pairs(scores, node, asked_targets.squeeze(0).bool(), balance)
        if weight is not None:
            loss = loss * weight
        return loss.sum(dim=-1).sum() / batch * self._scale(logits)

    def weight_of_pairs(
        self,
        scores: Float[Tensor, "members 1 pairs"],
        node: Int[Tensor, " pairs"],
        positive: Bool[Tensor, " pairs"],
        balance: Float[Tensor, " pairs"] | None = None,
    ) -> Float[Tensor, " pairs"] | None:
        """`element_weight` of some pairs of an example and a node; None where it is 1.

        Args:
            scores: logits of `q_j`, `[members, 1, pairs]`; of a type and device, where there is no
                focal term.
            node: the node of each pair, `[pairs]`.
            positive: whether the example is positive in it, `[pairs]`.
            balance: the balance of each pair, `[pairs]`; None means 1.

        """
        if not len(node):
            return None
        factors = []
        if self.positive_weight is not None or self.negative_weight is not None:
            one = scores.new_ones(())
            of_class = [
                one if weight is None else weight.to(scores)[node]
                for weight in (self.positive_weight, self.negative_weight)
            ]
            factors.append(torch.where(positive, *of_class))
        if self.focal is not None:
            factors.append(self.focal.weight(scores).squeeze(0))
        if balance is not None:
            factors.append(balance)
        if not factors:
            return None
        weight = math.prod(factors)
        return weight if self.mixture == 1 else self.mixture * weight + (1 - self.mixture)


def _check_sparse(
    sparse: str, objective: str, element: Callable, balance: Callable | None, reduction: str
) -> None:
    if sparse not in AT_REST:
        raise ValueError(f"unknown sparse training {sparse!r}: known are {', '.join(AT_REST)}")
    fits = {
        "the conditional objective": objective == "conditional",
        "binary cross-entropy": element is bce,
        "no balance": balance is None,
        "reduction per example": reduction == "per example",
    }
    missing = [expected for expected, holds in fits.items() if not holds]
    if missing:
        raise ValueError(f"sparse training needs {', '.join(missing)}")
