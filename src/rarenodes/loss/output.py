"""How a member's logits become coherent probabilities: the rule a network is trained for."""

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rarenodes.loss.elements import bce
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.kernels import EdgePlan, coherent_scores, kernel_available
from rarenodes.loss.topdown import PRODUCT, PRODUCT_OF_LOGITS, TopDownPlan, top_down

Logits = Float[Tensor, "members batch nodes"]
RULES = ("maximum", "product")


@dataclass(frozen=True, eq=False)
class Output:
    """From logits to coherent probabilities.

    - `maximum`: a logit stands for a node's probability, and `p̂_j = max_{d ∈ D(j)} sigmoid(z_d)`.
    - `product`: a logit stands for the probability of a node given all its parents, and
      `p_j = sigmoid(z_j) · min over parents k of p_k`.

    Of a node without training positives a network has learnt nothing but to deny it. It may be given
    a constant instead, its probability given its parents: `p_j = c_j · min over parents k of p_k`
    under either rule (for `product` that is `z_j = logit(c_j)`), so that it inherits its parents'
    ranking. Its own logit is then not looked at, by `maximum` not for its ancestors either. All
    descendants of such a node are without positives too, and get their constants on top of it; a
    root's probability is its constant. As `c_j < 1`, this is coherent.

    Attributes:
        rule: `maximum` or `product`.
        constant: `[nodes]`, `c_j` in (0, 1), and NaN where the network decides; None: it always does.
            See `rarenodes.loss.conditional.conditional_frequency`.

    Raises:
        ValueError: an unknown rule, or a constant outside (0, 1).

    """

    rule: str = "maximum"
    constant: Float[Tensor, " nodes"] | None = None
    _plans: WeakKeyDictionary = field(default_factory=WeakKeyDictionary, init=False, repr=False)

    def __post_init__(self):
        if self.rule not in RULES:
            raise ValueError(f"unknown output rule {self.rule!r}: known are {', '.join(RULES)}")
        if self.constant is not None:
            given = self.constant[~self.constant.isnan()]
            wrong = given[(given <= 0) | (given >= 1)]
            if len(wrong):
                raise ValueError(
                    f"constants of nodes must be above 0 and below 1, found {wrong[0]:g}"
                )

    def probabilities(self, logits: Logits, hierarchy: Hierarchy) -> Logits:
        """Coherent probabilities of every member: `[members, batch, nodes]`, in [0, 1].

        Args:
            logits: `[members, batch, nodes]`.
            hierarchy: the nodes' hierarchy.

        Raises:
            ValueError: constants that do not fit the hierarchy: not one a node, or none for a
                descendant of a node that has one.

        """
        plan = self._plan(hierarchy)
        if self.rule == "product":
            given = torch.sigmoid(logits)
        else:
            given = torch.sigmoid(_maximum(self._silenced(logits), hierarchy))
        if self.constant is not None:
            constant = self.constant.to(given)
            given = torch.where(constant.isnan(), given, constant)
        return given if plan is None else top_down(given, plan, PRODUCT)

    def bce(
        self, logits: Logits, targets: Tensor, hierarchy: Hierarchy
    ) -> Float[Tensor, "members batch nodes"]:
        """Binary cross-entropy of the members' probabilities, from logits, without weights.

        Of a positive by `maximum` it is that of `rarenodes.loss.coherent.coherent_bce`.

        Args:
            logits: `[members, batch, nodes]`.
            targets: `[batch, nodes]`, 0/1 or bool, ancestor-closed.
            hierarchy: the nodes' hierarchy.

        Returns:
            `[members, batch, nodes]`, at least 0.

        """
        if self.rule == "product":
            scores = self._top_down_logits(logits, hierarchy)
        elif self.constant is None:
            scores = hierarchy.max_over_agreeing_descendants(logits, targets)
        else:
            silenced, unseen = self._silenced(logits), ~self.constant.isnan().to(logits.device)
            seen = hierarchy.max_over_agreeing_descendants(silenced, targets)
            inherited = self._top_down_logits(hierarchy.max_over_descendants(silenced), hierarchy)
            scores = torch.where(unseen, inherited, seen)
        return bce(scores, targets)

    def _top_down_logits(self, logits: Logits, hierarchy: Hierarchy) -> Logits:
        plan = self._plan(hierarchy)
        if self.constant is not None:
            constant = torch.logit(self.constant.to(logits))
            logits = torch.where(constant.isnan(), logits, constant)
        return top_down(logits, plan, PRODUCT_OF_LOGITS)

    def _silenced(self, logits: Logits) -> Logits:
        """The logits, without those that are not looked at."""
        if self.constant is None:
            return logits
        return logits.masked_fill(~self.constant.isnan().to(logits.device), -torch.inf)

    def _plan(self, hierarchy: Hierarchy) -> TopDownPlan | None:
        """The nodes that are combined with their parents, if any are."""
        if self.constant is None:
            return TopDownPlan.of(hierarchy) if self.rule == "product" else None
        if hierarchy not in self._plans:
            unseen = _unseen(self.constant, hierarchy)
            every = self.rule == "product"
            plan = TopDownPlan(hierarchy, None if every else unseen.nonzero().flatten().tolist())
            self._plans[hierarchy] = plan
        return self._plans[hierarchy]


def _maximum(logits: Logits, hierarchy: Hierarchy) -> Logits:
    if kernel_available(logits) and not (torch.is_grad_enabled() and logits.requires_grad):
        return coherent_scores(logits, EdgePlan.of(hierarchy))
    return hierarchy.max_over_descendants(logits)


def _unseen(constant: Float[Tensor, " nodes"], hierarchy: Hierarchy) -> Bool[Tensor, " nodes"]:
    """Which nodes have a constant, if that can be."""
    if tuple(constant.shape) != (len(hierarchy),):
        raise ValueError(
            f"constants must have shape ({len(hierarchy)},), found {tuple(constant.shape)}"
        )
    unseen = ~constant.isnan().cpu()
    child, parent = hierarchy.edge_index.unbind(1)
    broken = (unseen[parent] & ~unseen[child]).nonzero()
    if len(broken):
        edge = int(broken[0])
        names = hierarchy.nodes[int(child[edge])], hierarchy.nodes[int(parent[edge])]
        raise ValueError(
            f"node {names[0]!r} has no constant though its parent {names[1]!r} has one: "
            "descendants of a node without training positives have none either"
        )
    return unseen
