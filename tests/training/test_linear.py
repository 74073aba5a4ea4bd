import io
import re
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import sparse
from scipy.special import expit
from strategies import hierarchies
from terminal import Terminal

from rarenodes.datasets import load_dataset
from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.scores.metrics import average_precision
from rarenodes.training import logistic
from rarenodes.training.linear import Linear, LinearSettings, fit_linear
from rarenodes.training.logistic import fit_logistic


def drawn(examples, features, nodes, seed=0, bias=-1.0):
    """Features of unequal scale that are correlated, and targets of various rarity."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, features)) @ rng.normal(size=(features, features))
    logits = x @ rng.normal(size=(features, nodes)) / features + np.linspace(bias, 0, nodes)
    y = (rng.random((examples, nodes)) < expit(logits)).astype(np.uint8)
    y[:2] = [[0], [1]]  # no node without positives or negatives
    return x, sparse.csr_array(y)


def by_scikit_learn(x, y, penalty):
    from sklearn.linear_model import LogisticRegression

    fitted = [
        LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(x, labels)
        for labels in y.toarray().T
    ]
    return np.stack([f.coef_[0] for f in fitted], axis=1), np.array(
        [f.intercept_[0] for f in fitted]
    )


@pytest.mark.parametrize("penalty", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("shape", [(80, 6, 7), (30, 50, 5)], ids=["tall", "wide"])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_solves_what_scikit_learn_solves(shape, penalty, kind):
    x, y = drawn(*shape)
    found = fit_logistic(kind(x), y, penalty)
    weights, intercept = by_scikit_learn(x, y, penalty)
    logits = x @ weights + intercept
    np.testing.assert_allclose(x @ found.weights + found.intercept, logits, atol=2e-3, rtol=1e-3)
    np.testing.assert_allclose(found.weights, weights, atol=2e-3, rtol=1e-2)


def test_the_gradient_vanishes_also_for_separable_nodes_with_a_small_penalty():
    x, y = drawn(40, 60, 4, bias=-4.0)
    found = fit_logistic(x, y, 1e-3)
    residual = expit(x @ found.weights + found.intercept) - y.toarray()
    start = x.T @ (y.toarray().mean(axis=0) - y.toarray())
    gradient = x.T @ residual + 1e-3 * found.weights
    assert np.linalg.norm(gradient) < 1e-3 * np.linalg.norm(start)
    assert np.abs(residual.sum(axis=0)).max() < 1e-2


def test_blocks_of_nodes_change_nothing(monkeypatch):
    x, y = drawn(50, 5, 9)
    whole = fit_logistic(x, y, 1.0)
    monkeypatch.setattr(logistic, "BLOCK", 100)  # two nodes at once
    parts = fit_logistic(x, y, 1.0)
    np.testing.assert_allclose(parts.weights, whole.weights, atol=1e-4)
    np.testing.assert_allclose(parts.intercept, whole.intercept, atol=1e-4)


def test_a_constant_column_gets_no_weight():
    x, y = drawn(50, 3, 2)
    found = fit_logistic(np.hstack([x, np.ones((50, 1))]), y, 1.0)
    np.testing.assert_allclose(found.weights[3], 0, atol=1e-9)


@pytest.mark.parametrize("labels", [0, 1])
def test_a_node_without_both_classes_is_refused(labels):
    y = sparse.csr_array(np.full((4, 1), labels))
    with pytest.raises(ValueError, match=f"node 0 has {4 * labels} positives among 4 examples"):
        fit_logistic(np.eye(4), y, 1.0)


# Flat and conditional


def dataset_of(hierarchy, targets, features, train=None):
    """All examples are trained on unless told otherwise."""
    rows = np.arange(len(targets)) if train is None else np.asarray(train)
    nothing = np.array([], dtype=np.int64)
    return Dataset(
        name="by hand",
        features=np.asarray(features, dtype=np.float32),
        targets=sparse.csr_array(np.asarray(targets, dtype=np.uint8)),
        hierarchy=hierarchy,
        split={"train": rows, "valid": nothing, "test": nothing},
        evaluated=np.ones(len(hierarchy), dtype=bool),
        card={},
    )


# r over a and b; c below both; d below a. Order: r, a, b, c, d.
DIAMOND = Hierarchy([("a", "r"), ("b", "r"), ("c", "a"), ("c", "b"), ("d", "a")])
LABELS = np.array(
    [
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 0, 0, 0],
    ]
)
INPUTS = np.array([[2.0, 1], [0.5, 1], [1.5, 0], [1, -1], [-1, 1], [-1, -2]])


def test_conditional_regressions_by_hand():
    dataset = dataset_of(DIAMOND, LABELS, INPUTS)
    linear = fit_linear(dataset, LinearSettings(kind="conditional", penalty=0.5), ["train"])
    # c learns from the three examples in which both a and b hold; a and b from all.
    for node, rows in {"a": range(6), "b": range(6), "c": [0, 1, 2]}.items():
        column = DIAMOND.index[node]
        weights, intercept = by_scikit_learn(
            INPUTS[rows], sparse.csr_array(LABELS[rows][:, [column]]), 0.5
        )
        np.testing.assert_allclose(linear.weights[:, column], weights[:, 0], atol=1e-3)
        np.testing.assert_allclose(linear.intercept[column], intercept[0], atol=1e-3)
    # r is always positive: log odds of 6.5 in 7. d never among the four examples of a: 0.5 in 5.
    for node, share in {"r": 6.5 / 7, "d": 0.5 / 5}.items():
        column = DIAMOND.index[node]
        assert (linear.weights[:, column] == 0).all()
        assert linear.intercept[column] == pytest.approx(np.log(share / (1 - share)), rel=1e-6)

    q = expit(INPUTS @ linear.weights + linear.intercept)
    r = q[:, 0]
    a, b = r * q[:, 1], r * q[:, 2]
    expected = np.stack([r, a, b, np.minimum(a, b) * q[:, 3], a * q[:, 4]], axis=1)
    predicted = linear.predict(INPUTS)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5)
    # A node that was never seen is ranked as its parent.
    assert (np.argsort(predicted[:, 4]) == np.argsort(predicted[:, 1])).all()


def test_flat_regressions_by_hand():
    dataset = dataset_of(DIAMOND, LABELS, INPUTS)
    linear = fit_linear(dataset, LinearSettings(kind="flat", penalty=0.5), ["train"])
    weights, intercept = by_scikit_learn(INPUTS, sparse.csr_array(LABELS[:, 1:4]), 0.5)
    np.testing.assert_allclose(linear.weights[:, 1:4], weights, atol=1e-3)
    np.testing.assert_allclose(linear.intercept[1:4], intercept, atol=1e-3)
    # d: 0.5 in 7.
    assert linear.intercept[4] == pytest.approx(np.log(0.5 / 6.5), rel=1e-6)
    p = expit(INPUTS @ linear.weights + linear.intercept)
    a, b = p[:, [1, 3, 4]].max(axis=1), p[:, [2, 3]].max(axis=1)
    expected = np.stack([p.max(axis=1), a, b, p[:, 3], p[:, 4]], axis=1)
    np.testing.assert_allclose(linear.predict(INPUTS), expected, rtol=1e-5)


def test_a_node_whose_parent_was_never_seen_is_even_odds_given_it():
    chain = Hierarchy([("a", "r"), ("b", "a")])
    dataset = dataset_of(chain, [[1, 0, 0], [1, 0, 0], [1, 1, 1]], np.eye(3), train=[0, 1])
    linear = fit_linear(dataset, LinearSettings(kind="conditional"), ["train"])
    assert linear.intercept[2] == 0


def conditional_by_recursion(hierarchy, q):
    """`[examples, nodes]`: each node's probability times the smallest of its parents', one by one."""

    def of(node):
        return q[:, node] * np.min([of(p) for p in hierarchy.parents[node]] or [np.ones(len(q))], 0)

    return np.stack([of(node) for node in range(len(hierarchy))], axis=1)


@given(hierarchies(), st.booleans(), st.integers(0, 5))
def test_predictions_are_coherent_on_trees_and_dags(hierarchy, conditional, seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(scale=3, size=(2, len(hierarchy))).astype(np.float32)
    intercept = rng.normal(scale=3, size=len(hierarchy)).astype(np.float32)
    features = rng.normal(size=(4, 2))
    predicted = Linear(weights, intercept, conditional, hierarchy).predict(features)
    assert predicted.dtype == np.float32
    assert hierarchy.is_coherent(torch.from_numpy(predicted))
    p = expit(features @ weights + intercept)
    expected = (
        conditional_by_recursion(hierarchy, p)
        if conditional
        else np.stack([p[:, hierarchy.descendants(n)].max(1) for n in range(len(hierarchy))], 1)
    )
    np.testing.assert_allclose(predicted, expected, rtol=1e-5)


@pytest.fixture(scope="module")
def synthetic():
    return load_dataset("synthetic", options={"signal": 1.0, "multi_parent": 0.5})


@pytest.mark.parametrize("kind", ["flat", "conditional"])
def test_sparse_features_in_place_of_the_data_sets_own(synthetic, kind):
    settings = LinearSettings(kind=kind, penalty=3.0)
    own = fit_linear(synthetic, settings, ["train"]).predict(synthetic.features)
    given_ones = sparse.csr_matrix(synthetic.features)
    found = fit_linear(synthetic, settings, ["train"], given_ones).predict(given_ones)
    np.testing.assert_allclose(found, own, atol=2e-3)


@pytest.mark.parametrize("kind", ["flat", "conditional"])
def test_ranks_better_than_chance_and_learns_from_what_it_is_told(synthetic, kind):
    settings = LinearSettings(kind=kind, penalty=3.0)
    linear = fit_linear(synthetic, settings, ["train"])
    rows = synthetic.split["test"]
    targets = synthetic.targets[rows][:, synthetic.evaluated]
    found = average_precision(
        linear.predict(synthetic.features[rows])[:, synthetic.evaluated], targets
    )
    assert np.nanmean(found) > 1.5 * np.nanmean(np.where(found > 0, targets.mean(axis=0), np.nan))
    more = fit_linear(synthetic, settings, ["train", "valid"])
    assert (more.weights != linear.weights).any()


def test_predicts_in_blocks(synthetic, monkeypatch):
    linear = fit_linear(synthetic, LinearSettings(), ["train"])
    whole = linear.predict(synthetic.features)
    monkeypatch.setattr("rarenodes.training.linear.BLOCK", 1)  # an example at a time
    np.testing.assert_allclose(linear.predict(synthetic.features), whole, rtol=1e-4)


@pytest.mark.parametrize("kind", ["flat", "conditional"])
def test_a_long_fit_shows_a_bar_of_all_nodes_in_a_terminal(synthetic, kind, monkeypatch):
    def written(where: io.StringIO, seconds: float) -> str:
        monkeypatch.setattr("rarenodes.training.linear.SECONDS_BEFORE_BAR", seconds)
        monkeypatch.setattr(sys, "stderr", where)
        fit_linear(synthetic, LinearSettings(kind=kind), ["train"])
        return where.getvalue()

    nodes = len(synthetic.hierarchy)
    assert re.search(rf"100%.* {nodes}/{nodes} ", written(Terminal(), 0))
    assert written(Terminal(), 60).strip() == ""
    assert written(io.StringIO(), 0) == ""


def test_features_of_other_examples_are_refused(synthetic):
    with pytest.raises(ValueError, match=r"features have 3 rows, expected one for each of the \d+"):
        fit_linear(synthetic, LinearSettings(), ["train"], np.zeros((3, 2)))


@pytest.mark.parametrize("values", [{"penalty": 0.0}, {"kind": "sideways"}])
def test_settings_out_of_range(values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        LinearSettings(**values)
