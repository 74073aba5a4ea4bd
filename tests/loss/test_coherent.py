"""The losses against their definitions: by hand, by naive loops, and in the conformance suite."""

import math
import re

import pytest
import torch
from conformance import (
    DAG,
    NODES,
    TARGETS,
    Case,
    Conformance,
    Definition,
    MaskedConformance,
    UncoupledConformance,
    balance_weights,
    random_logits,
    scheduled,
    sigmoid,
)
from hypothesis import given
from strategies import batches, descendants, random_dag
from torch import Tensor

from rarenodes.loss.coherent import Focal, RareNodeLoss, bce, coherent_bce
from rarenodes.loss.elements import element_loss
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.schedules import Moment, Schedule
from rarenodes.loss.uncertainty import KINDS
from rarenodes.loss.weighting import DistributionBalance

CHAIN = Hierarchy([("child", "root"), ("grandchild", "child")])
COMMON = torch.tensor([0.25, 0.5, 1.0, 2.0, 0.75, 3.0, 5.0])
RARE = torch.tensor([1.5, 4.0, 0.3, 1.0, 0.0, 0.25, 2.5])
SOME = torch.tensor([False, True, True, True, False, True, False])
SHIFT = torch.tensor([2.0, 0.5, 0.0, -1.5, -0.25, 1.0, -2.0])
# As if the classes of `TARGETS` were counted in 20 examples, C in none.
BALANCE = DistributionBalance(
    torch.tensor([20.0, 9, 12, 0, 3, 5, 1], dtype=torch.float64), alpha=0.2, beta=4.0, mu=0.3
)


def naive_coherent_bce(logits: Tensor, targets: Tensor, hierarchy: Hierarchy) -> Tensor:
    """The definition word for word: from probabilities, over explicit `D(j)`; float64."""
    below = descendants(hierarchy.nodes, hierarchy.edges)
    out = torch.zeros(logits.shape, dtype=torch.float64)
    for m, b, j in torch.cartesian_prod(*map(torch.arange, logits.shape)).tolist():
        p = [sigmoid(z) for z in logits[m, b].tolist()]
        if targets[b, j]:
            out[m, b, j] = -math.log(max(p[d] for d in below[j] if targets[b, d]))
        else:
            out[m, b, j] = -math.log1p(-max(p[d] for d in below[j]))
    return out


# Coherent binary cross-entropy


def bce_of(p: float, y: int) -> float:
    return -math.log(p) if y else -math.log(1 - p)


def test_coherent_bce_by_hand():
    # Probabilities: root 1/2, child 1/5, grandchild 3/4.
    logits = torch.tensor([0.0, math.log(1 / 4), math.log(3)], dtype=torch.float64)
    targets = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    found = coherent_bce(logits.expand(1, 4, 3), targets, CHAIN)[0]
    expected = [
        # None is positive: every node's maximum is the grandchild's 3/4, and -ln(1 - 3/4) = ln 4.
        [math.log(4), math.log(4), math.log(4)],
        # Root positive, and alone so: its own 1/2, -ln(1/2) = ln 2. Below as before.
        [math.log(2), math.log(4), math.log(4)],
        # Root: max(1/2, 1/5) = 1/2, as the grandchild is negative. Child: its own 1/5, ln 5.
        [math.log(2), math.log(5), math.log(4)],
        # All positive: every node has 3/4, -ln(3/4) = ln(4/3).
        [math.log(4 / 3), math.log(4 / 3), math.log(4 / 3)],
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_gradient_of_coherent_bce_by_hand():
    # The same chain, the third row of targets. dBCE/dz = p - y at whichever node the maximum is:
    # root: 1/2 - 1 on itself; child: 1/5 - 1 on itself; grandchild: 3/4 on itself.
    logits = torch.tensor([0.0, math.log(1 / 4), math.log(3)], dtype=torch.float64)
    logits = logits.view(1, 1, 3).requires_grad_()
    targets = torch.tensor([[1, 1, 0]])
    (gradient,) = torch.autograd.grad(coherent_bce(logits, targets, CHAIN).sum(), logits)
    expected = torch.tensor([[[-0.5, -0.8, 0.75]]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected)
    # No target is positive: all three push the grandchild down.
    (gradient,) = torch.autograd.grad(coherent_bce(logits, 0 * targets, CHAIN).sum(), logits)
    expected = torch.tensor([[[0, 0, 2.25]]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected)


@given(batches())
def test_coherent_bce_agrees_with_brute_force(batch):
    hierarchy, logits, targets = batch
    found = coherent_bce(logits, targets, hierarchy)
    expected = naive_coherent_bce(logits, targets, hierarchy)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def dense_loss(logits: Tensor, targets: Tensor, hierarchy: Hierarchy) -> Tensor:
    """MCLoss as published: two maxima over a dense descendant matrix, on probabilities."""
    below = descendants(hierarchy.nodes, hierarchy.edges)
    matrix = torch.zeros(len(below), len(below), dtype=torch.float64)
    for j, d in enumerate(below):
        matrix[j, sorted(d)] = 1
    p = torch.sigmoid(logits)
    constrained = (matrix * p.unsqueeze(-2)).amax(dim=-1)
    positive = (matrix * (targets * p).unsqueeze(-2)).amax(dim=-1)
    output = (1 - targets) * constrained + targets * positive
    return -(targets * output.log() + (1 - targets) * (1 - output).log())


@given(batches())
def test_coherent_bce_agrees_with_the_dense_definition(batch):
    hierarchy, logits, targets = batch
    found = coherent_bce(logits, targets, hierarchy)
    torch.testing.assert_close(found, dense_loss(logits, targets, hierarchy), rtol=1e-9, atol=1e-9)


def test_gradient_of_coherent_bce_agrees_with_the_dense_definition():
    # Without ties, where both have one gradient.
    hierarchy = Hierarchy(random_dag(30, 45))
    torch.manual_seed(0)
    logits = torch.randn(3, 8, 30, dtype=torch.float64, requires_grad=True)
    targets = hierarchy.close((torch.rand(8, 30) < 0.1).double())
    weight = torch.rand(3, 8, 30, dtype=torch.float64)
    ours, dense = (
        torch.autograd.grad((weight * loss(logits, targets, hierarchy)).sum(), logits)[0]
        for loss in (coherent_bce, dense_loss)
    )
    torch.testing.assert_close(ours, dense)


@pytest.mark.parametrize("hierarchy", [CHAIN, DAG], ids=["chain", "DAG"])
def test_coherent_bce_gradcheck(hierarchy):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, len(hierarchy), dtype=torch.float64, requires_grad=True)
    targets = hierarchy.close(torch.eye(len(hierarchy), dtype=torch.float64)[[0, 1, -1]])
    assert torch.autograd.gradcheck(lambda z: coherent_bce(z, targets, hierarchy), logits)


def test_bce_by_hand():
    logits = torch.tensor([[[0.0, math.log(1 / 4), math.log(3)]]])
    expected = torch.tensor([[[math.log(2), math.log(5 / 4), math.log(4 / 3)]]])
    torch.testing.assert_close(bce(logits, torch.tensor([[1, 0, 1]])), expected)


def test_memory_at_the_size_of_the_gene_ontology(allocated):
    hierarchy = Hierarchy(random_dag(4126, 5827))
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 4126, requires_grad=True)
    targets = hierarchy.close((torch.rand(4, 4126) < 0.001).float())
    loss = RareNodeLoss(hierarchy, positive_weight=torch.rand(4126), focal=Focal("bbma"))
    with allocated:
        loss.reference(logits, targets).backward()
    assert logits.grad.count_nonzero() > 1000
    assert 0.5e6 < allocated.bytes < 5e6


# Conformance: every configuration of the loss passes the whole suite.

CONFIGURATIONS: dict[str, dict] = {
    "coherent": {},
    "plain": {"coherent": False},
    "weighted float64": {"positive_weight": RARE.double(), "negative_weight": COMMON.double()},
    "evaluated": {"evaluated": SOME},
    "plain, all switches": {
        "coherent": False,
        "positive_weight": RARE,
        "negative_weight": COMMON,
        "focal": Focal("entropy", power=2.0),
        "evaluated": SOME,
    },
    "focal square root": {"focal": Focal("bbma", power=0.5, floor=1.0)},
    **{f"focal {kind}": {"focal": Focal(kind)} for kind in KINDS},
    # Element losses
    "focal loss": {"element": element_loss("focal", gamma=3.0, alpha=0.25)},
    "asymmetric": {
        "element": element_loss("asymmetric", positive_gamma=1.0, negative_gamma=2.0, margin=0.2)
    },
    "negative tolerant": {"element": element_loss("negative_tolerant", scale=3.0)},
    # Shifts and balance
    "distribution balanced": {
        "element": element_loss("negative_tolerant", scale=2.0),
        "shift": SHIFT,
        "balance": BALANCE.weight,
        "evaluated": SOME,
    },
    # Mixtures
    "mixed balance": {"balance": BALANCE.weight, "mixture": 0.8},
    "mixed, none weighted": {"positive_weight": RARE, "focal": Focal("gmu"), "mixture": 0.0},
    # Schedules at a moment: epoch of epochs, step of steps
    "linear, last step": {
        "positive_weight": RARE,
        "schedule": Schedule("linear", end=0.5),
        "moment": (2, 3, 4, 5),
    },
    "exponential, each epoch": {
        "negative_weight": RARE,
        "schedule": Schedule("exponential", power=3.0, over="epoch", end=1.0),
        "moment": (1, 3, 1, 5),
    },
    "alternating, odd epoch": {
        "positive_weight": RARE,
        "negative_weight": COMMON,
        "schedule": Schedule("alternating", end=2.0),
        "moment": (1, 3, 2, 5),
    },
    "released, the other class follows": {
        "negative_weight": RARE,
        "evaluated": SOME,
        "schedule": Schedule.released("exponential"),
        "moment": (1, 3, 3, 5),
        "reduction": "mean",
    },
    "released, mixed": {
        "negative_weight": COMMON,
        "mixture": 0.3,
        "schedule": Schedule.released("linear"),
        "moment": (0, 3, 2, 5),
        "reduction": "mean",
    },
    # Reductions
    "mean of weighted, masked": {
        "positive_weight": RARE,
        "evaluated": SOME,
        "reduction": "mean",
    },
    # All at once
    "everything by the kernel": {
        "positive_weight": RARE,
        "negative_weight": COMMON,
        "focal": Focal("kl", power=2.0, floor=0.1),
        "evaluated": SOME,
        "coherent": False,
        "mixture": 0.6,
        "schedule": Schedule("linear", over="epoch"),
        "moment": (1, 3, 1, 5),
        "reduction": "mean",
    },
    "everything by tensors": {
        "positive_weight": RARE,
        "negative_weight": COMMON,
        "focal": Focal("gmu", power=2.0),
        "evaluated": SOME,
        "element": element_loss("focal", gamma=1.0, alpha=0.6),
        "shift": SHIFT,
        "balance": BALANCE.weight,
        "mixture": 0.7,
        "schedule": Schedule("exponential", power=2.0),
        "moment": (1, 3, 3, 5),
        "reduction": "sum",
    },
}


def case_of(
    positive_weight=None,
    negative_weight=None,
    focal=None,
    evaluated=None,
    element=bce,
    shift=None,
    balance=None,
    schedule=None,
    moment=None,
    **same,
) -> Case:
    """A loss of these arguments, at a moment where it has a schedule, and its definition."""
    arguments = {
        "positive_weight": positive_weight,
        "negative_weight": negative_weight,
        "focal": focal,
        "evaluated": evaluated,
        "element": element,
        "shift": shift,
        "balance": balance,
        "schedule": schedule,
    }

    def build() -> RareNodeLoss:
        loss = RareNodeLoss(DAG, **arguments, **same)
        if moment is not None:
            loss.at(Moment(*moment))
        return loss

    def at_moment(weight: Tensor | None) -> list[float] | None:
        if weight is None and schedule is not None and schedule.classes == "both":
            weight = torch.ones(len(DAG))
        if weight is None or schedule is None:
            return plain(weight)
        return [scheduled(w, moment, **vars(schedule)) for w in weight.tolist()]

    def plain(values: Tensor | None) -> list | None:
        return None if values is None else values.tolist()

    rule = None if balance is None else balance.__self__
    definition = Definition(
        DAG,
        positive=at_moment(positive_weight),
        negative=at_moment(negative_weight),
        focal=None if focal is None else (focal.uncertainty, focal.power, focal.floor),
        evaluated=plain(evaluated),
        element=getattr(element, "func", element).__name__,
        options=getattr(element, "keywords", {}),
        shift=plain(shift),
        balance=rule
        and (lambda y: balance_weights(rule.counts.tolist(), y, rule.alpha, rule.beta, rule.mu)),
        **same,
    )
    # Scheduled weights are rounded as those they start from are.
    return Case(build, definition, 1e-9 if schedule is None else 1e-6)


def configurations(which=lambda arguments: True):
    """A fixture of the cases of some configurations."""
    chosen = {name: arguments for name, arguments in CONFIGURATIONS.items() if which(arguments)}

    @pytest.fixture(params=chosen.values(), ids=chosen.keys())
    def case(self, request) -> Case:
        return case_of(**request.param)

    return case


class TestConformance(Conformance):
    case = configurations()


class TestMasked(MaskedConformance):
    case = configurations(lambda arguments: "evaluated" in arguments)
    loss = Conformance.loss


class TestUncoupled(UncoupledConformance):
    case = configurations(lambda arguments: "focal" not in arguments)
    loss = Conformance.loss

    def test_gradcheck(self, loss):
        logits = random_logits(1).requires_grad_()
        assert torch.autograd.gradcheck(lambda z: loss(z, TARGETS), logits)


# What single switches mean


def test_plain_loss_is_pytorchs():
    logits = random_logits()
    found = RareNodeLoss(DAG, coherent=False)(logits, TARGETS)
    targets = TARGETS.double().expand(3, 4, 7)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, targets, reduction="sum"
    )
    torch.testing.assert_close(found, expected / 4)


def test_coherent_loss_is_not_plain():
    logits = random_logits()
    assert RareNodeLoss(DAG)(logits, TARGETS) != RareNodeLoss(DAG, coherent=False)(logits, TARGETS)


def test_weights_by_hand():
    # One member, one example: root positive, child and grandchild negative; all logits 0, so every
    # element is ln 2 before weighting.
    logits, targets = torch.zeros(1, 1, 3), torch.tensor([[1, 0, 0]])
    positive, negative = torch.tensor([2.0, 30, 30]), torch.tensor([40.0, 5, 7])
    ln2 = math.log(2)
    cases = [
        ({"positive_weight": positive}, [2, 1, 1]),
        ({"negative_weight": negative}, [1, 5, 7]),
        ({"positive_weight": positive, "negative_weight": negative}, [2, 5, 7]),
        ({}, [1, 1, 1]),
    ]
    for weights, expected in cases:
        found = RareNodeLoss(CHAIN, **weights).elements(logits, targets)
        torch.testing.assert_close(found, ln2 * torch.tensor([[expected]]).float())


def test_focal_weight_by_hand():
    # Two members at 1/5 and 3/5: mean 2/5, margin 1/5, bbma 4/5; .1 + .8² = .74.
    logits = torch.logit(torch.tensor([0.2, 0.6], dtype=torch.float64)).view(2, 1, 1)
    weight = Focal("bbma", power=2.0, floor=0.1).weight(logits)
    torch.testing.assert_close(weight, torch.tensor([[0.74]], dtype=torch.float64))


def test_focal_weight_is_of_unconstrained_probabilities():
    # The child is certain (p = 1) and the root, taken alone, undecided (p = 1/2). Constrained, the
    # root would be certain and weigh the floor.
    logits = torch.tensor([[[0.0, 200.0, -200.0]]])
    loss = RareNodeLoss(CHAIN, focal=Focal("bbma", power=1.0, floor=0.25))
    weight = loss.element_weight(logits, torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(weight, torch.tensor([[1.25, 0.25, 0.25]]))


def test_focal_weight_multiplies_the_node_weight():
    logits = random_logits()
    both = RareNodeLoss(DAG, positive_weight=RARE, negative_weight=COMMON, focal=Focal("kl"))
    nodes = RareNodeLoss(DAG, positive_weight=RARE, negative_weight=COMMON)
    expected = nodes.element_weight(logits, TARGETS) * Focal("kl").weight(logits)
    torch.testing.assert_close(both.element_weight(logits, TARGETS), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_focal_weight_has_no_gradient(kind):
    logits = random_logits().requires_grad_()
    weight = Focal(kind).weight(logits)
    assert not weight.requires_grad
    loss = RareNodeLoss(DAG, focal=Focal(kind))
    (gradient,) = torch.autograd.grad(loss(logits, TARGETS), logits)
    frozen = (coherent_bce(logits, TARGETS, DAG) * weight).sum() / 4
    torch.testing.assert_close(gradient, torch.autograd.grad(frozen, logits)[0])


def test_focal_defaults_are_the_papers():
    assert Focal() == Focal(uncertainty="gmu", power=1.0, floor=0.25)


def test_a_masked_node_counts_nothing_itself_but_passes_its_score_up():
    # All targets 0 and the grandchild the largest: it decides the elements of all three.
    logits = torch.tensor([[[-1.0, -2.0, 1.5]]], dtype=torch.float64, requires_grad=True)
    targets = torch.zeros(1, 3)
    mask = torch.tensor([True, True, False])
    value = RareNodeLoss(CHAIN, evaluated=mask)(logits, targets)
    p = sigmoid(1.5)
    assert value.item() == pytest.approx(2 * bce_of(p, 0))  # not three times
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.flatten().tolist() == pytest.approx([0, 0, 2 * p])
    # Where it is not the largest, it counts nothing at all.
    logits = torch.tensor([[[-1.0, -2.0, -3.0]]], dtype=torch.float64, requires_grad=True)
    value = RareNodeLoss(CHAIN, evaluated=mask)(logits, targets)
    assert value.item() == pytest.approx(bce_of(sigmoid(-1), 0) + bce_of(sigmoid(-2), 0))
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient[0, 0, 2] == 0


def test_weights_of_masked_nodes_do_not_matter():
    logits = random_logits()
    weights = RARE.clone()
    weights[~SOME] = 1000
    one = RareNodeLoss(DAG, positive_weight=RARE, evaluated=SOME)(logits, TARGETS)
    other = RareNodeLoss(DAG, positive_weight=weights, evaluated=SOME)(logits, TARGETS)
    assert one == other


def test_weights_of_classes_that_do_not_occur_do_not_matter():
    # The root is always positive, C never: its other weight is never used.
    logits = random_logits()
    positive, negative = RARE.clone(), COMMON.clone()
    positive[NODES.index("C")] = negative[NODES.index("root")] = 1000
    one = RareNodeLoss(DAG, positive_weight=RARE, negative_weight=COMMON)(logits, TARGETS)
    other = RareNodeLoss(DAG, positive_weight=positive, negative_weight=negative)(logits, TARGETS)
    assert DAG.nodes == NODES
    assert one == other


def test_the_element_loss_is_of_the_coherent_logit():
    # One member at p = 1/2, 1/5, 3/4; no target is positive, so all three cost a focal loss at 3/4.
    logits = torch.tensor([[[0.0, math.log(1 / 4), math.log(3)]]], dtype=torch.float64)
    element = element_loss("focal", gamma=2.0)
    found = RareNodeLoss(CHAIN, element=element).elements(logits, torch.zeros(1, 3))
    expected = torch.full((1, 1, 3), (3 / 4) ** 2 * math.log(4), dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_shift_by_hand():
    # Logits 0 and targets 1, 1, 0. The shift is added after the maximum: it is no node's score.
    logits, targets = torch.zeros(1, 1, 3, dtype=torch.float64), torch.tensor([[1, 1, 0]])
    shift = torch.tensor([0.0, math.log(3), -math.log(4)], dtype=torch.float64)
    found = RareNodeLoss(CHAIN, shift=shift).elements(logits, targets)
    expected = [math.log(2), math.log(4 / 3), math.log(5 / 4)]
    torch.testing.assert_close(found, torch.tensor([[expected]], dtype=torch.float64))


def test_focal_weight_does_not_see_the_shift():
    loss = RareNodeLoss(DAG, shift=SHIFT, focal=Focal("bbma"))
    logits = random_logits()
    expected = Focal("bbma").weight(logits)
    torch.testing.assert_close(loss.element_weight(logits, TARGETS), expected)


def test_balance_sees_targets_alone_and_multiplies_the_other_weights():
    logits = random_logits()
    loss = RareNodeLoss(DAG, positive_weight=RARE, focal=Focal("kl"), balance=BALANCE.weight)
    others = RareNodeLoss(DAG, positive_weight=RARE, focal=Focal("kl"))
    expected = BALANCE.weight(TARGETS) * others.element_weight(logits, TARGETS)
    torch.testing.assert_close(loss.element_weight(logits, TARGETS), expected)


def test_mixture_is_between_the_weighted_and_the_unweighted_loss():
    logits = random_logits()
    arguments = {"positive_weight": RARE, "focal": Focal("gmu"), "balance": BALANCE.weight}
    weighted = RareNodeLoss(DAG, **arguments)(logits, TARGETS)
    unweighted = RareNodeLoss(DAG)(logits, TARGETS)
    for share in (0.0, 0.25, 1.0):
        found = RareNodeLoss(DAG, **arguments, mixture=share)(logits, TARGETS)
        torch.testing.assert_close(found, share * weighted + (1 - share) * unweighted)


def test_reductions_by_hand():
    # Two members, two examples, two nodes that count, all elements ln 2: 8 of them.
    logits, targets = torch.zeros(2, 2, 3), torch.tensor([[1, 0, 0], [1, 1, 0]])
    mask = torch.tensor([False, True, True])
    sizes = {"per example": 4, "sum": 8, "mean": 1}
    for reduction, size in sizes.items():
        loss = RareNodeLoss(CHAIN, evaluated=mask, reduction=reduction)
        assert loss(logits, targets).item() == pytest.approx(size * math.log(2))
    assert RareNodeLoss(CHAIN, reduction="mean")(logits, targets).item() == pytest.approx(
        math.log(2)
    )


def test_a_schedule_starts_from_the_first_weights_at_every_moment():
    first = {"positive_weight": RARE, "negative_weight": COMMON}
    loss = RareNodeLoss(DAG, **first, schedule=Schedule("linear", end=0.5))
    for step, share in [(0, 1.0), (2, 0.5), (4, 0.0), (1, 0.75), (0, 1.0)]:
        loss.at(Moment(0, 1, step, 5))
        for name, start in first.items():
            torch.testing.assert_close(getattr(loss, name), 0.5 + share * (start - 0.5))


def test_a_scheduled_loss_weighs_as_at_the_start_until_it_is_told_the_moment():
    logits = random_logits()
    loss = RareNodeLoss(DAG, positive_weight=RARE, schedule=Schedule("linear"))
    constant = RareNodeLoss(DAG, positive_weight=RARE)
    assert loss(logits, TARGETS) == constant(logits, TARGETS)
    loss.at(Moment(0, 1, 4, 5))
    assert loss(logits, TARGETS) != constant(logits, TARGETS)
    loss.at(Moment(0, 1, 0, 5))
    assert loss(logits, TARGETS) == constant(logits, TARGETS)


def test_a_released_epoch_ends_at_a_quarter_of_the_unweighted_loss():
    logits, plain = random_logits(), RareNodeLoss(DAG, reduction="mean")
    for kind in ("linear", "exponential"):
        loss = RareNodeLoss(
            DAG, negative_weight=RARE, schedule=Schedule.released(kind), reduction="mean"
        )
        loss.at(Moment(2, 3, 4, 5))
        torch.testing.assert_close(loss(logits, TARGETS), plain(logits, TARGETS) / 4)


def test_without_a_schedule_or_weights_no_moment_changes_anything():
    for arguments in (
        {"positive_weight": RARE},
        {"schedule": Schedule("linear")},
        {"schedule": Schedule.released("linear")},
    ):
        loss = RareNodeLoss(DAG, **arguments)
        before = loss(random_logits(), TARGETS)
        loss.at(Moment(0, 1, 4, 5))
        assert loss(random_logits(), TARGETS) == before


def test_what_a_schedule_starts_from_moves_with_the_module():
    loss = RareNodeLoss(DAG, positive_weight=RARE, schedule=Schedule("linear")).double()
    loss.at(Moment(0, 1, 1, 5))
    assert loss.positive_weight.dtype == torch.float64


# Messages


@pytest.mark.parametrize("kind", list(KINDS))
def test_half_precision_is_finite_where_members_are_sure(kind):
    logits = torch.tensor([20.0, -20.0, 0.0]).repeat(2, 3, 3)[..., :7].half()
    loss = RareNodeLoss(DAG, focal=Focal(kind))(logits, DAG.close(torch.eye(7)[:3]))
    assert loss.isfinite()


@pytest.mark.parametrize("name", ["positive_weight", "negative_weight"])
def test_messages_of_bad_weights(name):
    with pytest.raises(ValueError, match=f"^{name} must have shape \\(7,\\), found \\(6,\\)$"):
        RareNodeLoss(DAG, **{name: torch.ones(6)})
    negative = torch.ones(7)
    negative[3] = -0.5
    with pytest.raises(ValueError, match=f"^{name} must be at least 0, found -0.5$"):
        RareNodeLoss(DAG, **{name: negative})
    negative[3] = torch.nan
    with pytest.raises(ValueError, match=f"^{name} must be at least 0, found nan$"):
        RareNodeLoss(DAG, **{name: negative})


@pytest.mark.parametrize(
    ("name", "value"), [("evaluated", torch.ones(3, dtype=torch.bool)), ("shift", torch.ones(3))]
)
def test_messages_of_a_bad_mask_and_a_bad_shift(name, value):
    message = f"{name} must have shape (7,), found (3,)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RareNodeLoss(DAG, **{name: value})


@pytest.mark.parametrize("mixture", [-0.1, 1.1, math.nan])
def test_message_of_a_bad_mixture(mixture):
    message = f"the mixture must be in [0, 1], found {mixture}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RareNodeLoss(DAG, mixture=mixture)


def test_messages_of_a_bad_focal_term():
    message = f"unknown uncertainty 'pcs': known are {', '.join(KINDS)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Focal("pcs")
    for power, floor in [(0.0, 0.25), (-1.0, 0.25), (1.0, -0.1)]:
        message = f"focal power must be above 0 and floor at least 0, found {power} and {floor}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            Focal("gmu", power, floor)
