"""Conditional training: values by hand, the definition in plain Python, gradients, extremes."""

import math
from collections.abc import Sequence

import pytest
import torch
from conformance import (
    DAG,
    Case,
    Conformance,
    Definition,
    MaskedConformance,
    UncoupledConformance,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import batches, hierarchies, random_dag, tensors
from torch import Tensor

from rarenodes.loss.coherent import Focal
from rarenodes.loss.conditional import (
    ConditionalLoss,
    active,
    conditional_bce,
    conditional_counts,
    conditional_frequency,
    conditional_log_probabilities,
    conditional_prior,
    unconditional_bce,
    unconditional_logits,
)
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.schedules import Moment

# root, A, B, C (of A and B), D (of C).
DIAMOND = Hierarchy([("A", "root"), ("B", "root"), ("C", "A"), ("C", "B"), ("D", "C")])
TARGETS = torch.tensor(
    [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.float64
)


# The definition, in plain Python and double precision


def parents_of(hierarchy: Hierarchy) -> list[list[int]]:
    index = {name: i for i, name in enumerate(hierarchy.nodes)}
    parents = [[] for _ in hierarchy.nodes]
    for child, parent in hierarchy.edges:
        parents[index[child]].append(index[parent])
    return parents


def log_sigmoid(z: float) -> float:
    return -math.log1p(math.exp(-z)) if z > 0 else z - math.log1p(math.exp(z))


def log_p(z: Sequence[float], parents: list[list[int]], j: int) -> float:
    """By recursion to the roots."""
    return log_sigmoid(z[j]) + min((log_p(z, parents, k) for k in parents[j]), default=0.0)


def not_p(z: Sequence[float], parents: list[list[int]], j: int) -> float:
    """`1 − p_j`: the node or its least likely parent fails. A sum of terms, without differences."""
    fails = 1 / (1 + math.exp(z[j]))
    return fails + (1 - fails) * max((not_p(z, parents, k) for k in parents[j]), default=0.0)


def elementwise(function, logits: Tensor, targets: Tensor, hierarchy: Hierarchy) -> Tensor:
    """`function(z, y, parents, j)` for every member, example and node."""
    parents = parents_of(hierarchy)
    return torch.tensor(
        [
            [
                [function(z, y, parents, j) for j in range(len(z))]
                for z, y in zip(member, targets.tolist(), strict=True)
            ]
            for member in logits.tolist()
        ],
        dtype=torch.float64,
    )


def conditional_cost(z, y, parents, j) -> float:
    if not all(y[k] for k in parents[j]):
        return 0.0
    return -log_sigmoid(z[j] if y[j] else -z[j])


def unconditional_cost(z, y, parents, j) -> float:
    return -log_p(z, parents, j) if y[j] else -math.log(not_p(z, parents, j))


# By hand


def test_conditional_loss_of_the_diamond_by_hand():
    found = conditional_bce(torch.zeros(1, 4, 5).double(), TARGETS, DIAMOND) / math.log(2)
    # C counts where A and B are both positive, D where C is, A and B where the root is.
    expected = [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]
    assert found[0].tolist() == [pytest.approx(row) for row in expected]


def test_a_positive_and_a_negative_cost_the_logarithm_of_their_own_probability():
    # q = 3/4 of all nodes.
    logits = torch.full((1, 4, 5), math.log(3), dtype=torch.float64)
    found = conditional_bce(logits, TARGETS, DIAMOND)[0, 1]
    right, wrong = -math.log(3 / 4), -math.log(1 / 4)
    assert found.tolist() == pytest.approx([right, right, right, wrong, 0])


def test_log_probabilities_of_the_diamond_by_hand():
    # q of root, A, B, C, D is 9/10, 1/2, 1/3, 1/2, 1/4. B is the less likely parent of C.
    q = torch.tensor([9 / 10, 1 / 2, 1 / 3, 1 / 2, 1 / 4], dtype=torch.float64)
    found = conditional_log_probabilities(torch.logit(q), DIAMOND).exp()
    assert found.tolist() == pytest.approx([9 / 10, 9 / 20, 3 / 10, 3 / 20, 3 / 80])
    logits = unconditional_logits(torch.logit(q), DIAMOND)
    assert torch.sigmoid(logits).tolist() == pytest.approx(found.tolist())


def test_unconditional_loss_of_the_diamond_by_hand():
    # p of root, A, B, C, D is 1/2, 1/4, 1/4, 1/8, 1/16.
    found = unconditional_bce(torch.zeros(1, 4, 5).double(), TARGETS, DIAMOND)[0]
    positive = [math.log(n) for n in (2, 4, 4, 8, 16)]
    negative = [math.log(n / (n - 1)) for n in (2, 4, 4, 8, 16)]
    assert found[0].tolist() == pytest.approx([*positive[:2], *negative[2:]])
    assert found[2].tolist() == pytest.approx(positive)
    assert found[3].tolist() == pytest.approx(negative)


def test_gradient_of_a_node_reaches_its_ancestors_by_the_less_likely_parent():
    logits = torch.tensor([0.0, 1, -1, 0, 0], dtype=torch.float64, requires_grad=True)
    conditional_log_probabilities(logits, DIAMOND)[4].backward()
    # The derivative of log q by z is 1 − q.
    expected = [1 / 2, 0, 1 - 1 / (1 + math.e), 1 / 2, 1 / 2]
    assert logits.grad.tolist() == pytest.approx(expected)


def test_equal_parents_hand_the_gradient_to_the_first():
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    conditional_log_probabilities(logits, DIAMOND)[3].backward()
    assert logits.grad.tolist() == pytest.approx([1 / 2, 1 / 2, 0, 1 / 2, 0])


def test_counts_frequency_and_prior_by_hand():
    # Of 4 examples: A is positive in 3 of 3, B in 2 of 3, C in 1 of 2, D in 1 of 1.
    parent_counts = conditional_counts(TARGETS, DIAMOND)
    assert parent_counts.tolist() == [4, 3, 3, 2, 1]
    counts = TARGETS.sum(dim=0)
    expected = [3.5 / 5, 3.5 / 4, 2.5 / 4, 1.5 / 3, 1.5 / 2]
    assert conditional_frequency(counts, parent_counts).tolist() == pytest.approx(expected)
    prior = conditional_prior(counts, parent_counts)
    assert prior.tolist() == pytest.approx([math.log(p / (1 - p)) for p in expected])
    half = conditional_prior(counts, parent_counts, strength=0.5)
    assert half.tolist() == pytest.approx((prior / 2).tolist())


# The definition


def test_random_hierarchies_agree_with_the_definition():
    seen = set()

    @given(batches())
    def check(batch):
        hierarchy, logits, targets = batch
        seen.add(hierarchy.is_tree)
        pairs = [(conditional_bce, conditional_cost), (unconditional_bce, unconditional_cost)]
        for function, definition in pairs:
            expected = elementwise(definition, logits, targets, hierarchy)
            exact = function(logits, targets, hierarchy)
            torch.testing.assert_close(exact, expected, rtol=1e-9, atol=1e-9)
            single = function(logits.float(), targets, hierarchy)
            torch.testing.assert_close(single.double(), expected, rtol=2e-6, atol=1e-6)
        expected = elementwise(lambda z, y, p, j: log_p(z, p, j), logits, targets, hierarchy)
        found = conditional_log_probabilities(logits, hierarchy)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert hierarchy.is_coherent(found)
        single = conditional_log_probabilities(logits.float(), hierarchy)
        torch.testing.assert_close(single.double(), expected, rtol=1e-6, atol=1e-6)
        assert hierarchy.is_coherent(single)
        assert hierarchy.is_coherent(unconditional_logits(logits.float(), hierarchy))

    check()
    assert seen == {True, False}


@given(hierarchies(), st.data())
def test_active_is_where_all_parents_are_positive(hierarchy, data):
    targets = data.draw(tensors(3, len(hierarchy), elements=st.sampled_from([0.0, 1.0])))
    parents = parents_of(hierarchy)
    expected = [[all(y[k] for k in above) for above in parents] for y in targets.tolist()]
    for dtype in (torch.float32, torch.bool, torch.uint8):
        assert active(targets.to(dtype), hierarchy).tolist() == expected
    assert conditional_counts(targets, hierarchy).tolist() == [
        sum(column) for column in zip(*expected, strict=True)
    ]


@given(batches())
def test_gradients_are_those_of_differences(batch):
    hierarchy, logits, targets = batch
    # Away from ties, where a minimum has no derivative.
    nudge = torch.arange(logits.numel(), dtype=torch.float64).view_as(logits)
    logits = (logits.clamp(-6, 6) + 0.013 * nudge.sin()).requires_grad_()
    for function in (
        lambda z: conditional_bce(z, targets, hierarchy),
        lambda z: unconditional_bce(z, targets, hierarchy),
        lambda z: conditional_log_probabilities(z, hierarchy),
        lambda z: unconditional_logits(z, hierarchy),
    ):
        assert torch.autograd.gradcheck(function, logits, eps=1e-6, atol=1e-5)


def test_a_large_dag_agrees_in_single_and_double_precision():
    hierarchy = Hierarchy(random_dag(400, 700))
    rng = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 8, 400, generator=rng)
    targets = hierarchy.close((torch.rand(8, 400, generator=rng) < 0.02).float())
    parents = parents_of(hierarchy)
    found = conditional_log_probabilities(logits, hierarchy)
    # Level by level, as the recursion would walk every path.
    expected = torch.nn.functional.logsigmoid(logits.double())
    order = sorted(range(400), key=lambda j: int(hierarchy.nodes[j][1:]))
    for j in order:
        if parents[j]:
            expected[..., j] += expected[..., parents[j]].min(dim=-1).values
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    for function in (conditional_bce, unconditional_bce):
        low, high = logits.clone().requires_grad_(), logits.double().requires_grad_()
        one, other = function(low, targets, hierarchy), function(high, targets, hierarchy)
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6)
        one.sum().backward(), other.sum().backward()
        torch.testing.assert_close(low.grad.double(), high.grad, rtol=1e-4, atol=1e-5)


# Extremes


@pytest.mark.parametrize("size", [1e4, 300.0, 88.0, 0.0])
def test_values_and_gradients_are_finite_in_single_precision(size):
    rng = torch.Generator().manual_seed(0)
    chain = Hierarchy([(f"{i + 1:02}", f"{i:02}") for i in range(30)])
    for hierarchy in (DIAMOND, chain):
        nodes = len(hierarchy)
        logits = size * torch.randint(-1, 2, (4, 64, nodes), generator=rng).float()
        logits[0], logits[1] = size, -size
        targets = hierarchy.close((torch.rand(64, nodes, generator=rng) < 0.1).float())
        for function in (conditional_bce, unconditional_bce):
            leaf = logits.clone().requires_grad_()
            value = function(leaf, targets, hierarchy)
            value.sum().backward()
            assert value.isfinite().all()
            assert (value >= 0).all()
            assert leaf.grad.isfinite().all()
        leaf = logits.clone().requires_grad_()
        value = conditional_log_probabilities(leaf, hierarchy)
        value.sum().backward()
        assert value.isfinite().all()
        assert (value <= 0).all()
        assert leaf.grad.isfinite().all()


def test_unconditional_negatives_that_are_certain_and_wrong_keep_value_and_gradient():
    # All nodes are as good as certain: log p is 0 in single precision, and log(1 − p) still there.
    chain = Hierarchy([("b", "a"), ("c", "b")])
    logits = torch.full((1, 1, 3), 1e4, requires_grad=True)
    loss = unconditional_bce(logits, torch.zeros(1, 3), chain)
    # 1 − p is n e^−10000 at distance n − 1 from the root.
    expected = [1e4 - math.log(n) for n in (1, 2, 3)]
    assert loss.flatten().tolist() == pytest.approx(expected, rel=1e-6)
    # A sum of n equal terms is shared by n logits.
    loss.sum().backward()
    assert logits.grad.flatten().tolist() == pytest.approx([11 / 6, 5 / 6, 1 / 3], rel=2e-3)


# The product in single precision


@pytest.mark.parametrize("rows", [1, 15, 16, 40])
@pytest.mark.parametrize(("nodes", "edges"), [(2, 1), (15, 20), (300, 299), (300, 600)])
def test_single_precision_agrees_with_double(rows, nodes, edges):
    hierarchy = Hierarchy(random_dag(nodes, edges))
    rng = torch.Generator().manual_seed(nodes + rows)
    for ties in (False, True):
        logits = 3 * torch.randn(rows, nodes, generator=rng)
        if ties:
            logits = logits.clamp(-1, 1).round()
        upstream = torch.randn(rows, nodes, generator=rng)
        low, high = logits.clone().requires_grad_(), logits.double().requires_grad_()
        found = unconditional_logits(low, hierarchy)
        expected = unconditional_logits(high, hierarchy)
        assert hierarchy.is_coherent(found)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-5)
        found.backward(upstream)
        if ties:
            # Where rounding breaks a tie the gradient takes another path, with the same sum.
            assert low.grad.isfinite().all()
            continue
        expected.backward(upstream.double())
        torch.testing.assert_close(low.grad.double(), high.grad, rtol=1e-3, atol=2e-4)


def test_equal_parents_hand_the_gradient_of_the_product_to_the_first():
    grads = []
    for dtype in (torch.float32, torch.float64):
        logits = torch.zeros(5, dtype=dtype, requires_grad=True)
        unconditional_logits(logits, DIAMOND)[3].backward()
        grads.append(logits.grad.double())
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-6)
    assert grads[0][2] == 0
    assert grads[0][1] > 0.1


def test_threads_and_layout_do_not_matter():
    hierarchy = Hierarchy(random_dag(300, 450))
    logits = torch.randn(300, 2, 200, generator=torch.Generator().manual_seed(0)).permute(2, 1, 0)
    expected = unconditional_logits(logits.contiguous(), hierarchy)
    assert torch.equal(unconditional_logits(logits, hierarchy), expected)
    torch.set_num_threads(3)
    try:
        assert torch.equal(unconditional_logits(logits, hierarchy), expected)
    finally:
        torch.set_num_threads(1)


# Members, shapes and errors


@pytest.mark.parametrize("function", [conditional_bce, unconditional_bce])
def test_members_together_are_each_alone(function):
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    together = function(logits, TARGETS, DIAMOND)
    for member in range(3):
        alone = function(logits[[member]], TARGETS, DIAMOND)
        torch.testing.assert_close(together[[member]], alone, rtol=1e-6, atol=1e-7)


def test_leading_dimensions_are_kept():
    logits = torch.randn(2, 3, 4, 5)
    for function in (conditional_log_probabilities, unconditional_logits):
        found = function(logits, DIAMOND)
        assert found.shape == logits.shape
        torch.testing.assert_close(found[1, 2], function(logits[1, 2], DIAMOND))


@pytest.mark.parametrize(
    "call",
    [
        lambda z: conditional_bce(z, TARGETS[:, :4], DIAMOND),
        lambda z: unconditional_bce(z, TARGETS[:, :4], DIAMOND),
        lambda z: conditional_log_probabilities(z, DIAMOND),
        lambda z: unconditional_logits(z, DIAMOND),
        lambda z: active(TARGETS[:, :4], DIAMOND),
    ],
)
def test_message_of_a_wrong_number_of_nodes(call):
    with pytest.raises(ValueError, match=r"(must be the 5 nodes|and the 5 nodes of the hierarchy)"):
        call(torch.zeros(1, 4, 4))


def test_message_of_counts_above_their_parents():
    message = r"found 3 of 2 at node 1; are the targets ancestor-closed\?$"
    with pytest.raises(ValueError, match=message):
        conditional_frequency(torch.tensor([4, 3]), torch.tensor([4, 2]))


# The losses' suite, for what no declared variant has

POSITIVE, NEGATIVE = (0.5, 2, 1, 3, 0.25, 1.5, 4), (1, 0.5, 2, 1, 3, 0.25, 1)
EVALUATED = (True, True, False, True, True, True, False)  # F, a leaf, and B, an inner node, are not
SHIFT = (0.5, -1, 0.25, -2, 0, 1, -0.5)


def case(objective: str, **arguments) -> Case:
    tensors = {
        name: torch.tensor(arguments[name], dtype=torch.float64 if name != "evaluated" else None)
        for name in ("positive_weight", "negative_weight", "evaluated", "shift")
        if name in arguments
    }
    others = {name: arguments[name] for name in ("mixture", "reduction") if name in arguments}
    focal = arguments.get("focal")
    return Case(
        lambda: ConditionalLoss(
            DAG,
            objective=objective,
            focal=None if focal is None else Focal(*focal),
            **tensors,
            **others,
        ),
        Definition(
            DAG,
            arguments.get("positive_weight"),
            arguments.get("negative_weight"),
            focal,
            arguments.get("evaluated"),
            coherent=False,
            given_parents=objective,
            shift=arguments.get("shift"),
            **others,
        ),
    )


BOTH = {"positive_weight": POSITIVE, "negative_weight": NEGATIVE}
MASKED = {
    "mask": {"evaluated": EVALUATED},
    "everything": {**BOTH, "evaluated": EVALUATED, "shift": SHIFT, "mixture": 0.3},
    "mean": {**BOTH, "evaluated": EVALUATED, "reduction": "mean"},
}
ALL = {
    **MASKED,
    "plain": {},
    "weights": BOTH,
    "shift": {"shift": SHIFT},
    "sum": {"reduction": "sum"},
}
FOCAL = {
    "focal": {"focal": ("gmu", 1.0, 0.25)},
    "shifted focal": {"focal": ("bbma", 2.0, 0.1), "shift": SHIFT, **BOTH},
}


def cases(named: dict[str, dict]):
    found = [(objective, name) for objective in ("conditional", "unconditional") for name in named]
    return pytest.fixture(
        params=[case(objective, **named[name]) for objective, name in found],
        ids=[f"{objective}, {name}" for objective, name in found],
    )(lambda self, request: request.param)


class TestConformance(Conformance):
    case = cases({**ALL, **FOCAL})


class TestMaskedConformance(MaskedConformance):
    case, loss = cases(MASKED), Conformance.loss


class TestUncoupledConformance(UncoupledConformance):
    case, loss = cases(ALL), Conformance.loss


def test_a_share_of_the_epochs_is_conditional_first():
    one_after_the_other = ConditionalLoss(DIAMOND, objective="unconditional", conditional_first=0.5)
    losses = {
        name: ConditionalLoss(DIAMOND, objective=name) for name in ("conditional", "unconditional")
    }
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = {name: loss(logits, TARGETS) for name, loss in losses.items()}
    # Of five epochs three start before the half of them is over.
    for epoch, name in enumerate(["conditional"] * 3 + ["unconditional"] * 2):
        for step in (0, 1):
            one_after_the_other.at(Moment(epoch, 5, step, 2))
            assert one_after_the_other(logits, TARGETS) == expected[name]
            torch.testing.assert_close(
                one_after_the_other.elements(logits, TARGETS),
                losses[name].elements(logits, TARGETS),
            )
    assert expected["conditional"] != expected["unconditional"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "posterior"}, "unknown objective 'posterior': known are conditional, uncon"),
        ({"conditional_first": 0.5}, "conditional_first is of the unconditional objective alone"),
        (
            {"objective": "unconditional", "conditional_first": 1.0},
            "conditional_first must be at least 0 and below 1, found 1.0",
        ),
    ],
)
def test_messages_of_the_loss(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConditionalLoss(DIAMOND, **arguments)


def test_a_root_that_is_not_evaluated_is_learnt_all_the_same():
    # One child below the root; the root holds always and is not evaluated.
    hierarchy = Hierarchy([("child", "root")])
    evaluated = torch.tensor([False, True])
    loss = ConditionalLoss(hierarchy, evaluated=evaluated)
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    loss(logits, torch.tensor([[1, 1], [1, 0]])).backward()
    # Each example pushes the root up by 1 − 1/2; the mean over two examples.
    assert logits.grad[0, :, 0].tolist() == [-0.25, -0.25]
    assert logits.grad[0, :, 1].tolist() == [-0.25, 0.25]
