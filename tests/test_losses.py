"""The losses against their definitions: by hand, by naive loops, and in one conformance suite."""

import math
import re
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from hypothesis import given
from strategies import batches, descendants, random_dag
from torch import Tensor

from rarenodes.hierarchy import Hierarchy
from rarenodes.losses import Focal, RareNodeLoss, bce, coherent_bce
from rarenodes.uncertainty import KINDS, uncertainty

CHAIN = Hierarchy([("child", "root"), ("grandchild", "child")])
# root, A, B, C (of A), D (of A and B), E (of B), F (of D and E).
NODES = ("root", "A", "B", "C", "D", "E", "F")
DAG = Hierarchy(
    [
        ("A", "root"),
        ("B", "root"),
        ("C", "A"),
        ("D", "A"),
        ("D", "B"),
        ("E", "B"),
        ("F", "D"),
        ("F", "E"),
    ]
)
# The root is always positive, and C never is.
#                          root A  B  C  D  E  F
TARGETS = torch.tensor(
    [[1.0, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1, 1], [1, 0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0]]
)
COMMON = torch.tensor([0.25, 0.5, 1.0, 2.0, 0.75, 3.0, 5.0])
RARE = torch.tensor([1.5, 4.0, 0.3, 1.0, 0.0, 0.25, 2.5])
SOME = torch.tensor([False, True, True, True, False, True, False])


# The definition, in plain Python


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def naive_coherent_bce(logits: Tensor, targets: Tensor, hierarchy: Hierarchy) -> Tensor:
    """METHOD.md § 1 word for word: from probabilities, over explicit `D(j)`; float64."""
    below = descendants(hierarchy.nodes, hierarchy.edges)
    out = torch.zeros(logits.shape, dtype=torch.float64)
    for m, b, j in torch.cartesian_prod(*map(torch.arange, logits.shape)).tolist():
        p = [sigmoid(z) for z in logits[m, b].tolist()]
        if targets[b, j]:
            out[m, b, j] = -math.log(max(p[d] for d in below[j] if targets[b, d]))
        else:
            out[m, b, j] = -math.log1p(-max(p[d] for d in below[j]))
    return out


def naive_loss(
    logits: Tensor,
    targets: Tensor,
    positive_weight: Tensor | None = None,
    negative_weight: Tensor | None = None,
    focal: Focal | None = None,
    evaluated: Tensor | None = None,
    coherent: bool = True,
    *,
    focal_from: Tensor,
) -> float:
    """Loss of `RareNodeLoss(DAG, ...)`, with the focal weights that the logits `focal_from` give."""
    if coherent:
        elements = naive_coherent_bce(logits, targets, DAG)
    else:
        elements = torch.zeros(logits.shape, dtype=torch.float64)
        for m, b, j in torch.cartesian_prod(*map(torch.arange, logits.shape)).tolist():
            p = sigmoid(logits[m, b, j].item())
            elements[m, b, j] = -math.log(p if targets[b, j] else 1 - p)
    if focal is not None:
        unsure = uncertainty(torch.sigmoid(focal_from), focal.uncertainty)
    total = 0.0
    members, batch, nodes = logits.shape
    for m in range(members):
        for b in range(batch):
            for j in range(nodes):
                if evaluated is not None and not evaluated[j]:
                    continue
                by_class = positive_weight if targets[b, j] else negative_weight
                weight = 1.0 if by_class is None else by_class[j].item()
                if focal is not None:
                    weight *= focal.floor + unsure[b, j].item() ** focal.power
                total += weight * elements[m, b, j].item() / batch
    return total


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


# Conformance: every configuration of the loss passes every test below.

CONFIGURATIONS: dict[str, dict] = {
    "coherent": {},
    "plain": {"coherent": False},
    "weighted positives": {"positive_weight": RARE},
    "weighted negatives": {"negative_weight": RARE},
    "weighted both": {"positive_weight": RARE, "negative_weight": COMMON},
    "weighted float64": {"positive_weight": RARE.double(), "negative_weight": COMMON.double()},
    "evaluated": {"evaluated": SOME},
    "plain, all switches": {
        "coherent": False,
        "positive_weight": RARE,
        "negative_weight": COMMON,
        "focal": Focal("entropy", power=2.0),
        "evaluated": SOME,
    },
    "focal without floor": {"focal": Focal("jsd", floor=0.0)},
    "focal squared": {"focal": Focal("gmu", power=2.0)},
    "focal square root": {"focal": Focal("bbma", power=0.5, floor=1.0)},
    "focal, all switches": {
        "positive_weight": RARE,
        "negative_weight": COMMON,
        "focal": Focal("gmu"),
        "evaluated": SOME,
    },
    **{f"focal {kind}": {"focal": Focal(kind)} for kind in KINDS},
}
UNCOUPLED = {name: kwargs for name, kwargs in CONFIGURATIONS.items() if "focal" not in kwargs}


def random_logits(members: int = 3, dtype=torch.float64, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(members, 4, 7, generator=rng, dtype=torch.float64).to(dtype)


def value_and_gradient(loss: Callable, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, targets)
    return value.detach(), torch.autograd.grad(value, logits)[0]


class TestConformance:
    @pytest.fixture(params=CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
    def arguments(self, request) -> dict:
        return request.param

    @pytest.fixture
    def loss(self, arguments) -> RareNodeLoss:
        return RareNodeLoss(DAG, **arguments)

    @pytest.mark.parametrize("members", [1, 2, 3])
    def test_value_is_the_definition(self, arguments, loss, members):
        logits = random_logits(members)
        expected = naive_loss(logits, TARGETS, **arguments, focal_from=logits)
        assert loss(logits, TARGETS).item() == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("targets", [torch.zeros(4, 7), torch.ones(4, 7)])
    def test_value_where_all_targets_are_equal(self, arguments, loss, targets):
        logits = random_logits()
        expected = naive_loss(logits, targets, **arguments, focal_from=logits)
        assert loss(logits, targets).item() == pytest.approx(expected, rel=1e-9)

    def test_gradient_is_that_of_the_definition_with_fixed_weights(self, arguments, loss):
        # Central differences of the naive loss; the focal weight stays that of the centre, as it
        # has no gradient of its own.
        centre, targets, step = random_logits(2)[:, 1:3], TARGETS[1:3], 1e-5
        expected = torch.zeros_like(centre)
        for at in torch.cartesian_prod(*map(torch.arange, centre.shape)).tolist():
            sides = []
            for sign in (1, -1):
                logits = centre.clone()
                logits[tuple(at)] += sign * step
                sides.append(naive_loss(logits, targets, **arguments, focal_from=centre))
            expected[tuple(at)] = (sides[0] - sides[1]) / (2 * step)
        _, gradient = value_and_gradient(loss, centre, targets)
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)

    def test_elements_are_summed_over_evaluated_nodes_and_members_and_averaged_over_the_batch(
        self, arguments, loss
    ):
        logits = random_logits()
        elements = loss.elements(logits, TARGETS)
        assert elements.shape == (3, 4, 7)
        evaluated = arguments.get("evaluated", torch.ones(7, dtype=torch.bool))
        expected = sum(
            elements[m, b, j].item() / 4
            for m in range(3)
            for b in range(4)
            for j in range(7)
            if evaluated[j]
        )
        assert loss(logits, TARGETS).item() == pytest.approx(expected, rel=1e-12)

    def test_loss_of_a_batch_is_the_mean_over_its_examples(self, loss):
        logits = random_logits()
        value, gradient = value_and_gradient(loss, logits, TARGETS)
        alone = [value_and_gradient(loss, logits[:, [b]], TARGETS[[b]]) for b in range(4)]
        torch.testing.assert_close(value, torch.stack([v for v, _ in alone]).mean())
        torch.testing.assert_close(gradient, torch.cat([g for _, g in alone], dim=1) / 4)

    def test_order_of_the_batch_does_not_matter(self, loss):
        logits, order = random_logits(), [2, 0, 3, 1]
        value, gradient = value_and_gradient(loss, logits, TARGETS)
        other, permuted = value_and_gradient(loss, logits[:, order], TARGETS[order])
        torch.testing.assert_close(value, other)
        torch.testing.assert_close(gradient[:, order], permuted)

    def test_order_of_the_members_does_not_matter(self, loss):
        logits = random_logits()
        value, gradient = value_and_gradient(loss, logits, TARGETS)
        for order in permutations(range(3)):
            other, permuted = value_and_gradient(loss, logits[[*order]], TARGETS)
            torch.testing.assert_close(value, other)
            torch.testing.assert_close(gradient[[*order]], permuted)

    @pytest.mark.parametrize("size", [1e4, 100.0, 0.0])
    @pytest.mark.parametrize("members", [1, 3])
    def test_extreme_logits_are_finite_in_float32(self, loss, size, members):
        torch.manual_seed(0)
        logits = size * torch.randint(-1, 2, (members, 4, 7)).float()
        logits[0, :, 0] = size  # not all members agree on the root
        value, gradient = value_and_gradient(loss, logits, TARGETS)
        assert value.isfinite()
        assert value >= 0
        assert gradient.isfinite().all()

    def test_certain_and_right_costs_nothing_and_certain_and_wrong_costs_the_logit(
        self, arguments, loss
    ):
        right = (2 * TARGETS - 1).expand(2, 4, 7) * 50.0
        assert loss(right, TARGETS) < 1e-12
        # Where all are wrong by 50, every element costs 50 times its weight; members that agree and
        # are certain have no uncertainty, so the focal weight is the floor.
        weight = torch.ones(4, 7)
        for y, name in enumerate(["negative_weight", "positive_weight"]):
            if name in arguments:
                weight = torch.where(TARGETS.eq(y), arguments[name].float(), weight)
        if "focal" in arguments:
            weight = weight * arguments["focal"].floor
        weight = weight[:, arguments.get("evaluated", torch.ones(7, dtype=torch.bool))]
        torch.testing.assert_close(loss(-right, TARGETS).float(), 2 * 50 * weight.sum() / 4)

    def test_float32_agrees_with_float64_and_stays_float32(self, arguments, loss):
        low, high = random_logits(dtype=torch.float32), random_logits(dtype=torch.float32).double()
        value, gradient = value_and_gradient(loss, low, TARGETS)
        exact, exact_gradient = value_and_gradient(loss, high, TARGETS)
        assert value.dtype == gradient.dtype == torch.float32
        assert exact.dtype == exact_gradient.dtype == torch.float64
        torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
    def test_type_of_targets_does_not_matter(self, loss, dtype):
        logits = random_logits()
        expected, gradient = value_and_gradient(loss, logits, TARGETS)
        value, other = value_and_gradient(loss, logits, TARGETS.to(dtype))
        assert value == expected
        assert other.tolist() == gradient.tolist()

    def test_arguments_are_left_alone(self, loss):
        logits, targets = random_logits(), TARGETS.clone()
        before = logits.clone(), targets.clone()
        value_and_gradient(loss, logits, targets)
        assert logits.tolist() == before[0].tolist()
        assert targets.tolist() == before[1].tolist()
        torch.testing.assert_close(RARE, torch.tensor([1.5, 4.0, 0.3, 1.0, 0.0, 0.25, 2.5]))

    def test_weights_and_mask_are_saved_and_moved_with_the_module(self, arguments, loss):
        names = {name for name in arguments if name in ("positive_weight", "negative_weight")}
        names |= {"evaluated"} & set(arguments)
        assert set(loss.state_dict()) == names
        assert not list(loss.parameters())


class TestUncoupled:
    """What holds for every configuration in which members do not see one another."""

    @pytest.fixture(params=UNCOUPLED.values(), ids=UNCOUPLED.keys())
    def loss(self, request) -> RareNodeLoss:
        return RareNodeLoss(DAG, **request.param)

    def test_members_together_are_each_alone(self, loss):
        logits = random_logits(5)
        value, gradient = value_and_gradient(loss, logits, TARGETS)
        alone = [value_and_gradient(loss, logits[[m]], TARGETS) for m in range(5)]
        torch.testing.assert_close(value, torch.stack([v for v, _ in alone]).sum())
        torch.testing.assert_close(gradient, torch.cat([g for _, g in alone]), rtol=1e-12, atol=0)

    def test_gradcheck(self, loss):
        logits = random_logits(2).requires_grad_()
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


# Messages


@pytest.mark.parametrize("shape", [(4, 6), (4, 8), (1, 7), (3, 7), (7,)])
@pytest.mark.parametrize("coherent", [True, False])
def test_message_of_targets_that_do_not_fit(shape, coherent):
    message = (
        "logits [members, batch, nodes] and targets [batch, nodes] must fit each other and the 7 "
        f"nodes of the hierarchy, found (3, 4, 7) and {shape}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RareNodeLoss(DAG, coherent=coherent)(random_logits(), torch.zeros(shape))


def test_message_of_an_empty_batch():
    with pytest.raises(ValueError, match=r"must fit .*found \(3, 0, 7\) and \(0, 7\)$"):
        RareNodeLoss(DAG)(torch.zeros(3, 0, 7), torch.zeros(0, 7))


@pytest.mark.parametrize("width", [6, 8])
def test_message_of_a_wrong_number_of_nodes(width):
    message = f"last dimension of shape (3, 4, {width}) must be the 7 nodes of the hierarchy"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        coherent_bce(torch.zeros(3, 4, width), TARGETS, DAG)


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


def test_message_of_a_bad_mask():
    message = "evaluated must have shape (7,), found (3,)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RareNodeLoss(DAG, evaluated=torch.ones(3, dtype=torch.bool))


def test_messages_of_a_bad_focal_term():
    message = f"unknown uncertainty 'pcs': known are {', '.join(KINDS)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Focal("pcs")
    for power, floor in [(0.0, 0.25), (-1.0, 0.25), (1.0, -0.1)]:
        message = f"focal power must be above 0 and floor at least 0, found {power} and {floor}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            Focal("gmu", power, floor)
