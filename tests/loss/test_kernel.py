"""The compiled loss against `RareNodeLoss` in PyTorch operations, which is its reference."""

import gc
import os
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from rarenodes.loss.coherent import Focal, bce, coherent_bce
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.kernels import (
    COMPILED_KINDS,
    EdgePlan,
    coherent_scores,
    compiled,
    focal_weights,
    fused_rare_node_loss,
    kernel_available,
)
from rarenodes.loss.uncertainty import KINDS, uncertainty

TREE = [("b", "a"), ("c", "a"), ("d", "b"), ("e", "b"), ("f", "c")]


@st.composite
def hierarchies(draw) -> Hierarchy:
    """Trees and DAGs of 2 to 24 nodes, whose names follow no order."""
    nodes = draw(st.integers(2, 24))
    names = draw(st.permutations([f"n{i}" for i in range(nodes)]))
    most_parents = draw(st.sampled_from([1, 1, 3]))
    edges = set()
    for child in range(1, nodes):
        parents = st.lists(st.integers(0, child - 1), min_size=1, max_size=most_parents)
        edges |= {(names[child], names[parent]) for parent in draw(parents)}
    return Hierarchy(sorted(edges))


def batch_of(hierarchy: Hierarchy, members: int, batch: int, seed: int, *, ties: bool = False):
    """Logits and closed targets; whole numbers from −1 to 1 where there shall be ties."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(members, batch, len(hierarchy), generator=generator)
    if ties:
        logits = logits.clamp(-1, 1).round()
    targets = hierarchy.close(torch.rand(batch, len(hierarchy), generator=generator) < 0.15)
    return logits.requires_grad_(), targets


def reference(
    logits,
    targets,
    hierarchy,
    positive=None,
    negative=None,
    focal=None,
    evaluated=None,
    coherent=True,
):
    """`RareNodeLoss` written out, so that it stays a reference when that calls the kernel."""
    elements = coherent_bce(logits, targets, hierarchy) if coherent else bce(logits, targets)
    one = torch.ones(())
    weight = torch.where(
        targets.bool(), one if positive is None else positive, one if negative is None else negative
    )
    if focal is not None:
        weight = weight * Focal(*focal).weight(logits)
    elements = elements * weight
    if evaluated is not None:
        elements = elements[..., evaluated]
    return elements.sum(dim=-1).mean(dim=-1).sum()


def kernel(
    logits,
    targets,
    hierarchy,
    positive=None,
    negative=None,
    focal=None,
    evaluated=None,
    coherent=True,
):
    """The compiled loss with a compiled focal term."""
    factor = None if focal is None else focal_weights(logits, *focal)
    weights = positive, negative, factor
    plan = EdgePlan.of(hierarchy)
    return fused_rare_node_loss(logits, targets, plan, *weights, evaluated, coherent=coherent)


def assert_same(logits, targets, hierarchy, *settings, tolerance=1e-5, **named):
    found = kernel(logits, targets, hierarchy, *settings, **named)
    expected = reference(logits, targets, hierarchy, *settings, **named)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        torch.autograd.grad(found, logits),
        torch.autograd.grad(expected, logits),
        rtol=tolerance,
        atol=tolerance,
    )


@settings(max_examples=300, deadline=None)
@given(
    hierarchy=hierarchies(),
    members=st.integers(1, 3),
    batch=st.sampled_from([1, 3, 4, 17]),
    seed=st.integers(0, 10**6),
    ties=st.booleans(),
)
def test_random_trees_and_dags(hierarchy, members, batch, seed, ties):
    logits, targets = batch_of(hierarchy, members, batch, seed, ties=ties)
    assert_same(logits, targets, hierarchy)


@settings(max_examples=150, deadline=None)
@given(
    hierarchy=hierarchies(),
    members=st.integers(1, 5),
    batch=st.sampled_from([1, 5, 16, 33]),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from([None, *COMPILED_KINDS]),
    power=st.sampled_from([1.0, 1.5, 2.0]),
    used=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
def test_weights_masks_and_focal_terms_together(hierarchy, members, batch, seed, kind, power, used):
    logits, targets = batch_of(hierarchy, members, batch, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    positive, negative, mask = torch.rand(3, len(hierarchy), generator=generator)
    assert_same(
        logits,
        targets,
        hierarchy,
        positive if used[0] else None,
        negative if used[1] else None,
        None if kind is None else (kind, power, 0.25),
        mask < 0.7 if used[2] else None,
        coherent=used[3],
        tolerance=1e-4,
    )


@pytest.mark.parametrize("kind", COMPILED_KINDS)
@pytest.mark.parametrize("members", [1, 2, 10])
def test_every_uncertainty(kind, members):
    """On more nodes than are worked on at once, with members that agree closely among them."""
    nodes = 2 * compiled.CHUNK + 3
    hierarchy = Hierarchy((str(i), str((i - 1) // 3)) for i in range(1, nodes))
    logits, targets = batch_of(hierarchy, members, 3, seed=0)
    with torch.no_grad():
        logits *= torch.logspace(-3, 1, nodes)
        logits[1:, :, ::2] = logits[:1, :, ::2] * (
            1 + 1e-4 * torch.rand(members - 1, 3, (nodes + 1) // 2)
        )
    assert_same(logits, targets, hierarchy, None, None, (kind, 1.0, 0.25), tolerance=2e-5)


def random_hierarchy(nodes: int, most_parents: int) -> Hierarchy:
    """Of more nodes than are worked on at once."""
    generator = np.random.default_rng(nodes + most_parents)
    edges = {
        (f"{child:04}", f"{parent:04}")
        for child in range(1, nodes)
        for parent in generator.integers(max(0, child - 150), child, size=most_parents)
    }
    return Hierarchy(sorted(edges))


@pytest.mark.parametrize("rows", [(1, 4), (2, 3), (1, 16), (3, 21)])
@pytest.mark.parametrize(
    "hierarchy",
    [
        random_hierarchy(4 * compiled.CHUNK + 7, most_parents=1),
        random_hierarchy(3 * compiled.CHUNK, most_parents=3),
        Hierarchy((f"{i + 1:04}", f"{i:04}") for i in range(2 * compiled.CHUNK + 5)),
        Hierarchy((f"{i:04}", "root") for i in range(2 * compiled.CHUNK + 5)),
    ],
    ids=["tree", "DAG", "chain", "star"],
)
def test_more_nodes_than_are_worked_on_at_once(hierarchy, rows):
    logits, targets = batch_of(hierarchy, *rows, seed=0)
    weight = torch.rand(len(hierarchy), generator=torch.Generator().manual_seed(1))
    assert_same(logits, targets.float().contiguous(), hierarchy)
    assert_same(logits, targets, hierarchy, weight, None, ("gmu", 1.0, 0.25), tolerance=2e-5)
    logits, targets = batch_of(hierarchy, *rows, seed=2, ties=True)
    assert_same(logits, targets, hierarchy)
    scores = logits.detach().flatten(end_dim=1)
    assert torch.equal(
        coherent_scores(scores, EdgePlan.of(hierarchy)), hierarchy.max_over_descendants(scores)
    )


def test_what_is_compiled_is_an_uncertainty_of_the_package():
    # The others are computed by tensors.
    assert len(COMPILED_KINDS) == 7
    assert set(COMPILED_KINDS) <= set(KINDS)


@pytest.mark.parametrize("kind", COMPILED_KINDS)
def test_compiled_focal_weights_are_those_of_tensor_code(kind):
    logits, _ = batch_of(Hierarchy(TREE), 4, 5, seed=0)
    found = focal_weights(logits, kind, 1.5, 0.1)
    torch.testing.assert_close(found, Focal(kind, 1.5, 0.1).weight(logits), rtol=2e-5, atol=1e-6)


def test_weights_of_zero_keep_their_side():
    """A node that weighs nothing still passes its logit up to those that agree with it only."""
    hierarchy = Hierarchy(TREE)
    logits, targets = batch_of(hierarchy, 2, 8, seed=0)
    nothing = torch.zeros(len(hierarchy))
    one_node = torch.arange(len(hierarchy)) == 0
    assert_same(logits, targets, hierarchy, nothing, None)
    assert_same(logits, targets, hierarchy, None, nothing)
    assert_same(logits, targets, hierarchy, None, None, None, one_node)


@pytest.mark.parametrize("magnitude", [1e2, 1e4, 1e30])
def test_extreme_logits(magnitude):
    hierarchy = Hierarchy(TREE)
    logits, targets = batch_of(hierarchy, 3, 20, seed=0)
    logits = (magnitude * logits.detach().sign()).requires_grad_()
    assert_same(logits, targets, hierarchy, None, None, ("gmu", 1.0, 0.25))
    loss = fused_rare_node_loss(logits, targets, EdgePlan.of(hierarchy))
    assert loss.isfinite()
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_a_nan_logit_is_not_hidden():
    hierarchy = Hierarchy(TREE)
    logits, targets = batch_of(hierarchy, 1, 4, seed=0)
    with torch.no_grad():
        logits[0, 2, 3] = torch.nan
    assert fused_rare_node_loss(logits, targets, EdgePlan.of(hierarchy)).isnan()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_targets_of_any_type(dtype):
    hierarchy = Hierarchy(TREE)
    logits, targets = batch_of(hierarchy, 2, 5, seed=0)
    assert_same(logits, targets.to(dtype), hierarchy)
    assert_same(logits, targets.to(dtype).contiguous(), hierarchy)


def test_memory_in_any_order():
    hierarchy = Hierarchy(TREE)
    logits, targets = batch_of(hierarchy, 3, 5, seed=0)
    turned = logits.detach().permute(2, 1, 0).contiguous().permute(2, 1, 0).requires_grad_()
    assert not turned.is_contiguous()
    assert_same(turned, targets.T.contiguous().T, hierarchy)


def test_the_gradient_scales_with_what_comes_from_above():
    hierarchy = Hierarchy(TREE)
    logits, targets = batch_of(hierarchy, 2, 5, seed=0)
    loss = fused_rare_node_loss(logits, targets, EdgePlan.of(hierarchy))
    (once,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (thrice,) = torch.autograd.grad(3 * loss, logits, retain_graph=True)
    (again,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(thrice, 3 * once)
    assert torch.equal(once, again)


def test_a_second_derivative_is_refused():
    hierarchy = Hierarchy(TREE)
    logits, targets = batch_of(hierarchy, 1, 4, seed=0)
    loss = fused_rare_node_loss(logits, targets, EdgePlan.of(hierarchy))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, logits, create_graph=True)


def test_without_a_gradient():
    hierarchy = Hierarchy(TREE)
    logits, targets = batch_of(hierarchy, 2, 5, seed=0)
    loss = fused_rare_node_loss(logits, targets, EdgePlan.of(hierarchy))
    with torch.no_grad():
        assert torch.equal(fused_rare_node_loss(logits, targets, EdgePlan.of(hierarchy)), loss)
    assert not fused_rare_node_loss(logits.detach(), targets, EdgePlan.of(hierarchy)).requires_grad


# --- Gradients that are kept, added up, or made by several threads.


@pytest.fixture(scope="module")
def two_batches():
    """A hierarchy, logits, and two batches of targets."""
    hierarchy = random_hierarchy(512, most_parents=1)
    logits, targets = batch_of(hierarchy, 2, 64, seed=0)
    return hierarchy, logits.detach(), targets, targets.roll(1, dims=0)


def gradient_of(hierarchy, logits, targets) -> torch.Tensor:
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(kernel(logits, targets, hierarchy), logits)[0]


def test_gradients_of_several_losses_add_up_and_a_kept_one_stays(two_batches):
    hierarchy, logits, targets, others = two_batches
    once, other = (gradient_of(hierarchy, logits, labels) for labels in (targets, others))
    leaf = logits.clone().requires_grad_()
    losses = [kernel(leaf, labels, hierarchy) for labels in (targets, others)]
    kept = once.clone()
    losses[0].backward(retain_graph=True)
    losses[1].backward()
    torch.testing.assert_close(leaf.grad, once + other)
    losses[0].backward()
    torch.testing.assert_close(leaf.grad, 2 * once + other)
    assert torch.equal(once, kept)


def test_gradients_of_several_threads(two_batches):
    hierarchy, logits, *both = two_batches
    expected = [gradient_of(hierarchy, logits, labels) for labels in both]

    def right(number: int) -> bool:
        found = gradient_of(hierarchy, logits, both[number % 2])
        return torch.equal(found, expected[number % 2])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(24)))


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def loss_and_gradient_on_all_threads():
    hierarchy = Hierarchy((str(i), str((i - 1) // 4)) for i in range(1, 500))
    logits, targets = batch_of(hierarchy, 4, 50, seed=0)
    loss = kernel(logits, targets, hierarchy, focal=("gmu", 1.0, 0.25))
    return loss.detach(), *torch.autograd.grad(loss, logits)


def test_the_same_bits_on_every_run_and_number_of_threads(three_threads):
    runs = [loss_and_gradient_on_all_threads() for _ in range(3)]
    torch.set_num_threads(1)
    runs.append(loss_and_gradient_on_all_threads())
    for loss, gradient in runs[1:]:
        assert torch.equal(loss, runs[0][0])
        assert torch.equal(gradient, runs[0][1])


@settings(max_examples=100, deadline=None)
@given(hierarchy=hierarchies(), rows=st.sampled_from([1, 15, 16, 33]), seed=st.integers(0, 10**6))
def test_coherent_scores(hierarchy, rows, seed):
    scores = torch.rand(rows, len(hierarchy), generator=torch.Generator().manual_seed(seed))
    found = coherent_scores(scores, EdgePlan.of(hierarchy))
    assert torch.equal(found, hierarchy.max_over_descendants(scores))


def test_the_kernel_takes_only_float32_on_the_cpu():
    assert kernel_available(torch.zeros(1, 1, 2))
    assert not kernel_available(torch.zeros(1, 1, 2, dtype=torch.float64))
    assert not kernel_available(torch.zeros(1, 0, 2))
    assert not kernel_available(torch.zeros(1, 1, 2, device="meta"))


def test_shapes_that_do_not_fit():
    hierarchy = Hierarchy(TREE)
    logits, targets = batch_of(hierarchy, 2, 5, seed=0)
    with pytest.raises(ValueError, match="must be the 6 nodes"):
        fused_rare_node_loss(logits[..., 1:], targets[..., 1:], EdgePlan.of(hierarchy))
    with pytest.raises(ValueError, match=r"targets must have shape \(5, 6\), found \(4, 6\)"):
        fused_rare_node_loss(logits, targets[1:], EdgePlan.of(hierarchy))
    with pytest.raises(ValueError, match=r"negative_weight must have shape \(6,\), found \(5,\)"):
        fused_rare_node_loss(logits, targets, EdgePlan.of(hierarchy), None, torch.ones(5))


def test_a_plan_lives_as_long_as_its_hierarchy():
    hierarchy = Hierarchy(TREE)
    plan = weakref.ref(EdgePlan.of(hierarchy))
    assert EdgePlan.of(hierarchy) is plan()
    del hierarchy
    gc.collect()
    assert plan() is None


LOGS = 'logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")'
FIRST_CALL = """
import torch
from rarenodes.loss.kernels import EdgePlan, coherent_scores
from rarenodes.loss.hierarchy import Hierarchy
for _ in range(2):
    coherent_scores(torch.zeros(1, 2), EdgePlan.of(Hierarchy([("b", "a")])))
"""


@pytest.mark.parametrize("setup", ["", LOGS], ids=["as Python comes", "with a log of infos"])
def test_the_first_call_says_that_it_compiles_and_no_other(tmp_path, setup):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", f"import logging, sys\n{setup}\n{FIRST_CALL}"],
            check=True, capture_output=True, text=True, env=environment,
        ).stderr.splitlines()
        for _ in range(2)
    ]  # fmt: skip
    assert said == [["compiling the loss for this machine: takes some seconds, once"], []]


# --- Elementary functions, in units of the last place of float32.


def ulps(found: np.ndarray, exact: np.ndarray) -> float:
    return float((np.abs(found - exact) / np.spacing(np.abs(exact).astype(np.float32))).max())


def applied(function, values: np.ndarray) -> np.ndarray:
    return np.array([function(np.float32(value)) for value in values], dtype=np.float64)


def test_exponential_to_two_ulp():
    t = -np.r_[np.logspace(-8, np.log10(87), 3000), np.linspace(0, 87, 3000)].astype(np.float32)
    assert ulps(applied(compiled.exp_of_negative, t), np.exp(t.astype(np.float64))) <= 2


def test_exponential_at_the_ends():
    assert compiled.exp_of_negative(np.float32(0)) == 1
    assert compiled.exp_of_negative(np.float32(-1e30)) == 0
    assert compiled.exp_of_negative(np.float32(-np.inf)) == 0
    assert np.isnan(compiled.exp_of_negative(np.float32(np.nan)))


def test_logarithm_of_one_plus_to_three_ulp():
    e = np.r_[np.logspace(-37, 0, 3000), np.linspace(0.01, 1, 3000)].astype(np.float32)
    assert ulps(applied(compiled.log_one_plus, e), np.log1p(e.astype(np.float64))) <= 3


def test_logarithm_to_three_ulp():
    x = np.r_[np.logspace(-10, 0, 3000), np.linspace(0.01, 1, 3000)].astype(np.float32)
    x = x[x != 1]
    assert ulps(applied(compiled.log, x), np.log(x.astype(np.float64))) <= 3


def test_uncertainty_of_probabilities_at_the_ends():
    """Members that are certain and disagree, which no logit short of 87 expresses."""
    logits = torch.tensor([200.0, -200.0, 200.0]).view(3, 1, 1).repeat(1, 1, 2)
    hierarchy = Hierarchy([("b", "a")])
    for kind in COMPILED_KINDS:
        expected = 0.25 + uncertainty(torch.sigmoid(logits), kind)
        loss = kernel(logits, torch.zeros(1, 2), hierarchy, focal=(kind, 1.0, 0.25))
        torch.testing.assert_close(loss, (400 * expected).sum())
