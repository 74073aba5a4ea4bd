"""The sparse last layer beside the dense loss and PyTorch's dense AdamW."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from strategies import batches
from torch import Tensor

from rarenodes.datasets.synthetic import random_hierarchy
from rarenodes.loss.active_nodes import ActiveNodes, active_nodes
from rarenodes.loss.conditional import active, conditional_bce
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.training.sparse_layer import RowAdam, SparseLayer, _by_node

WIDTH = 5


def made(nodes: int, members: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(members, nodes, WIDTH + 1, generator=torch.Generator().manual_seed(seed))


def sparse_of(targets: Tensor, hierarchy: Hierarchy) -> ActiveNodes:
    return active_nodes(sparse.csr_array(targets.numpy()), hierarchy)


def dense_loss(weight: Tensor, hidden: Tensor, targets: Tensor, hierarchy: Hierarchy) -> Tensor:
    logits = hidden @ weight[..., :-1].mT + weight[..., -1].unsqueeze(1)
    return conditional_bce(logits, targets, hierarchy).sum() / len(targets)


@settings(deadline=None)
@given(batches(), st.integers(0, 1000))
def test_loss_and_gradients_are_those_of_the_dense_loss(case, seed):
    hierarchy, logits, targets = case
    stream = torch.Generator().manual_seed(seed)
    members, batch, nodes = logits.shape
    hidden = torch.randn(members, batch, WIDTH, generator=stream)
    weight = made(nodes, members, seed)
    found = sparse_of(targets, hierarchy)
    # Without momentum, and with ε far above any gradient, a step is the gradient times rate / ε.
    layer = SparseLayer(weight, RowAdam(1e8, betas=(0.0, 0.0), epsilon=1e8))
    loss, gradient = layer.step(hidden, found)

    inputs = hidden.double().requires_grad_()
    rows = weight.double().requires_grad_()
    expected = dense_loss(rows, inputs, targets, hierarchy)
    of_hidden, of_rows = torch.autograd.grad(expected, [inputs, rows])
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient.double(), of_hidden, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((weight - layer.weight).double(), of_rows, rtol=1e-5, atol=1e-5)


def case_of(dag: bool, examples: int = 24, nodes: int = 40) -> tuple[Hierarchy, Tensor, Tensor]:
    """A hierarchy, hidden units of 2 members and closed targets of few labels."""
    rng = np.random.default_rng(3)
    hierarchy = random_hierarchy(nodes, rng, branching=4, multi_parent=0.5 if dag else 0.0)
    labels = torch.from_numpy(rng.random((examples, nodes)) < 0.02)
    hidden = torch.randn(2, examples, WIDTH, generator=torch.Generator().manual_seed(1))
    return hierarchy, hidden, hierarchy.close(labels).float()


def trained(layer: SparseLayer, case, steps: int, batch: int) -> list[float]:
    hierarchy, hidden, targets = case
    every = sparse_of(targets, hierarchy)
    losses = []
    for step in range(steps):
        rows = np.arange(step * batch, (step + 1) * batch) % len(targets)
        losses.append(layer.step(hidden[:, rows], every.of(rows))[0])
    layer.settle()
    return losses


def by_adamw(weight: Tensor, case, steps: int, batch: int, still: bool, **options) -> Tensor:
    """Dense AdamW in double precision; with `still`, rows without a gradient only decay."""
    hierarchy, hidden, targets = case
    rows = weight.double().requires_grad_()
    adam = torch.optim.AdamW([rows], **options)
    for step in range(steps):
        chosen = np.arange(step * batch, (step + 1) * batch) % len(targets)
        adam.zero_grad()
        dense_loss(rows, hidden[:, chosen].double(), targets[chosen], hierarchy).backward()
        before = rows.detach().clone()
        adam.step()
        if still:
            rests = ~active(targets[chosen], hierarchy).any(dim=0)
            kept = 1 - options["lr"] * options["weight_decay"]
            rows.data[:, rests] = before[:, rests] * kept
    return rows.detach()


@pytest.mark.parametrize("dag", [False, True], ids=["tree", "DAG"])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("at_rest", ["still", "moving"])
def test_steps_are_those_of_dense_adamw(dag, decay, at_rest):
    case = case_of(dag)
    weight = made(len(case[0]))
    layer = SparseLayer(weight, RowAdam(0.01, weight_decay=decay, at_rest=at_rest))
    trained(layer, case, 60, 3)
    options = {"lr": 0.01, "weight_decay": decay}
    expected = by_adamw(weight, case, 60, 3, at_rest == "still", **options)
    torch.testing.assert_close(layer.weight.double(), expected, rtol=1e-4, atol=2e-5)
    other = by_adamw(weight, case, 60, 3, at_rest != "still", **options)
    assert (layer.weight.double() - other).abs().max() > 1e-2  # the two do differ


def test_without_momentum_rows_at_rest_are_those_of_dense_adamw():
    case = case_of(dag=True)
    weight = made(len(case[0]))
    layer = SparseLayer(weight, RowAdam(0.01, weight_decay=0.3, betas=(0.0, 0.99)))
    trained(layer, case, 60, 3)
    options = {"lr": 0.01, "weight_decay": 0.3, "betas": (0.0, 0.99)}
    expected = by_adamw(weight, case, 60, 3, still=False, **options)
    torch.testing.assert_close(layer.weight.double(), expected, rtol=1e-4, atol=2e-5)


def test_steps_left_out_of_a_long_rest_are_below_rounding():
    hierarchy, hidden, _ = case_of(dag=False)
    targets = torch.zeros(hidden.shape[1], len(hierarchy))
    targets[0, 0] = 1  # the root's children are active once in a round of 600 steps
    case = hierarchy, hidden[:, :24].repeat(1, 25, 1), targets.repeat(25, 1)
    case[2][24:] = 0
    weight = made(len(hierarchy))
    adam = RowAdam(0.01, weight_decay=0.3, at_rest="moving")
    assert adam.reach < 600
    layer = SparseLayer(weight, adam)
    trained(layer, case, 600, 1)
    expected = by_adamw(weight, case, 600, 1, still=False, lr=0.01, weight_decay=0.3)
    torch.testing.assert_close(layer.weight.double(), expected, rtol=1e-4, atol=2e-5)


def test_members_are_the_same_alone_and_side_by_side():
    hierarchy, hidden, targets = case_of(dag=True)
    weight = made(len(hierarchy))
    both = SparseLayer(weight, RowAdam(0.01))
    trained(both, (hierarchy, hidden, targets), 20, 4)
    for m in range(2):
        alone = SparseLayer(weight[m : m + 1], RowAdam(0.01))
        trained(alone, (hierarchy, hidden[m : m + 1], targets), 20, 4)
        assert torch.equal(alone.weight[0], both.weight[m])


def test_the_bits_are_the_same_with_one_thread_and_two(monkeypatch):
    case = case_of(dag=True, examples=60)
    threads = torch.get_num_threads()
    found = []
    # So that this small work is spread.
    monkeypatch.setattr("rarenodes.loss.kernels.threads.PARALLEL_FROM", 0)
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            layer = SparseLayer(made(len(case[0])), RowAdam(0.01, 0.1, "moving"))
            losses = trained(layer, case, 20, 20)
            found.append((losses, layer.weight))
    finally:
        torch.set_num_threads(threads)
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_training_lowers_the_loss():
    hierarchy, hidden, targets = case_of(dag=False)
    layer = SparseLayer(made(len(hierarchy)), RowAdam(0.05))
    every = sparse_of(targets, hierarchy)
    before = layer.loss(hidden, every)
    trained(layer, (hierarchy, hidden, targets), 100, len(targets))
    assert layer.loss(hidden, every) < 0.3 * before


def test_extreme_logits_cost_what_they_say():
    hierarchy = Hierarchy([("A", "root")])
    targets = torch.tensor([[0.0, 0.0]])
    weight = torch.zeros(1, 2, WIDTH + 1)
    weight[0, 0, -1] = 200.0
    layer = SparseLayer(weight, RowAdam())
    loss, gradient = layer.step(torch.ones(1, 1, WIDTH), sparse_of(targets, hierarchy))
    assert loss == 200
    assert torch.equal(gradient, torch.zeros(1, 1, WIDTH))
    assert layer.weight.isfinite().all()


def test_pairs_of_a_node_come_in_the_order_of_the_batch():
    found = ActiveNodes(
        np.array([0, 2, 3, 5]), np.array([1, 4, 4, 0, 4], np.int32), np.zeros(5, np.uint8)
    )
    rows, order, bounds = _by_node(found)
    assert rows.tolist() == [0, 1, 4]
    assert order.tolist() == [3, 0, 1, 2, 4]
    assert bounds.tolist() == [0, 1, 2, 5]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"learning_rate": 0.0}, "learning_rate above 0"),
        ({"weight_decay": -1.0}, "weight_decay at least 0"),
        ({"learning_rate": 1.0, "weight_decay": 1.0}, "below 1"),
        ({"betas": (1.0, 0.9)}, "betas in"),
        ({"betas": (0.99, 0.9), "at_rest": "moving"}, "β₁ below √β₂"),
        ({"epsilon": 0.0}, "epsilon above 0"),
    ],
)
def test_updates_that_cannot_be_are_refused(options, expected):
    with pytest.raises(ValueError, match=expected):
        RowAdam(**options)


def test_shapes_that_do_not_fit_are_refused():
    hierarchy, hidden, targets = case_of(dag=False)
    every = sparse_of(targets, hierarchy)
    layer = SparseLayer(made(len(hierarchy)), RowAdam())
    with pytest.raises(ValueError, match=r"shape \(2, 24, 5\).*found torch.float32 \(1, 24, 5\)"):
        layer.step(hidden[:1], every)
    with pytest.raises(ValueError, match=r"found torch\.float64"):
        layer.step(hidden.double(), every)
    with pytest.raises(ValueError, match="layer has 7 nodes"):
        SparseLayer(made(7), RowAdam()).step(hidden, every)
    with pytest.raises(ValueError, match="weight must be float32"):
        SparseLayer(made(7).double(), RowAdam())
