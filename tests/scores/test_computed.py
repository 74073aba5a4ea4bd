"""Scores that are worked out some nodes at a time against the same of all nodes at once."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import Tensor

from rarenodes.datasets.synthetic import random_hierarchy
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.output import Output
from rarenodes.scores import stored as storage
from rarenodes.scores.computed import ComputedScores

NODES, EXAMPLES, WIDTH = 60, 20, 5


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So small that everything here takes several, the last of them not full."""
    monkeypatch.setattr(storage, "NODES_AT_ONCE", 7)


def case_of(dag: bool, nodes: int = NODES, examples: int = EXAMPLES):
    rng = np.random.default_rng(2)
    hierarchy = random_hierarchy(nodes, rng, branching=4, multi_parent=0.5 if dag else 0.0)
    stream = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, examples, WIDTH, generator=stream)
    weight = torch.randn(2, nodes, WIDTH + 1, generator=stream)
    return hierarchy, hidden, weight


def all_at_once(
    hierarchy: Hierarchy, hidden: Tensor, weight: Tensor, constant: Tensor | None = None
) -> np.ndarray:
    logits = hidden @ weight[..., :-1].mT + weight[..., -1].unsqueeze(1)
    return Output("product", constant).probabilities(logits, hierarchy).mean(dim=0).numpy()


def constant_of_leaves(hierarchy: Hierarchy) -> Tensor:
    constant = torch.full((len(hierarchy),), torch.nan)
    constant[hierarchy.indices(hierarchy.leaves)[::2]] = 0.125
    return constant


@pytest.mark.parametrize("dag", [False, True])
@pytest.mark.parametrize("constant", [None, constant_of_leaves])
def test_scores_are_those_of_all_nodes_at_once(dag, constant):
    hierarchy, hidden, weight = case_of(dag)
    constant = None if constant is None else constant(hierarchy)
    evaluated = np.random.default_rng(0).random(NODES) < 0.6
    scores = ComputedScores(hidden, weight, hierarchy, evaluated, constant)
    assert scores.shape == (EXAMPLES, evaluated.sum())
    blocks = [scores.read(block) for block in scores.blocks()]
    assert len(blocks) > 3
    assert all(block.dtype == np.float32 and block.flags.c_contiguous for block in blocks)
    expected = all_at_once(hierarchy, hidden, weight, constant)[:, evaluated]
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), expected, rtol=2e-5)


@pytest.mark.parametrize("dag", [False, True])
def test_the_best_are_those_of_all_columns_that_count(dag):
    hierarchy, hidden, weight = case_of(dag)
    constant, rng = constant_of_leaves(hierarchy), np.random.default_rng(0)
    evaluated = rng.random(NODES) < 0.8
    among = rng.random(evaluated.sum()) < 0.5
    scores = ComputedScores(hidden, weight, hierarchy, evaluated, constant)
    expected = all_at_once(hierarchy, hidden, weight, constant)[:, evaluated]
    found = scores.best(4, among)
    assert among[found].all()
    np.testing.assert_allclose(
        np.take_along_axis(expected, found, axis=1),
        -np.sort(-expected[:, among], axis=1)[:, :4],
        rtol=2e-5,
    )


def test_where_few_count_the_rest_is_none():
    hierarchy, hidden, weight = case_of(dag=True)
    among = np.zeros(NODES, dtype=bool)
    among[[3, 50]] = True
    found = ComputedScores(hidden, weight, hierarchy, np.ones(NODES, bool)).best(3, among)
    assert {tuple(sorted(row)) for row in found.tolist()} == {(-1, 3, 50)}
    assert (found[:, 2] == -1).all()


def test_examples_by_nodes_are_never_held():
    hierarchy, hidden, weight = case_of(dag=False, nodes=2000, examples=400)
    scores = ComputedScores(hidden, weight, hierarchy, np.ones(2000, bool))
    scores.read(slice(0, 7))  # what is kept with the hierarchy
    tracemalloc.start()
    for block in scores.blocks():
        scores.read(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400 * 2000 * 4 / 10


def test_shapes_that_do_not_fit_are_refused():
    hierarchy, hidden, weight = case_of(dag=False)
    with pytest.raises(ValueError, match=r"weight must be \[2 members, 60 nodes, 5\] to fit"):
        ComputedScores(hidden[..., 1:], weight, hierarchy, np.ones(NODES, bool))
