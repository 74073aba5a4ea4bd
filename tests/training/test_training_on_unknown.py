"""Training where of some pairs of an example and a node it is unknown what is true."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.targets import closed_targets, unknown_below
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.scores.unknown import unknown_in
from rarenodes.settings import read_settings
from rarenodes.training.budget import Budget
from rarenodes.training.committee import choose_weights, combine, traces_of
from rarenodes.training.forest import ForestSettings, fit_forest, grow
from rarenodes.training.linear import LinearSettings, fit_linear
from rarenodes.training.loop import Streams, train_ensemble
from rarenodes.training.neighbours import NeighbourSettings, fit_neighbours
from rarenodes.training.tuning import Validation
from rarenodes.training.variants import VariantSettings, build_loss, resampled

EDGES = [("a", "r"), ("b", "r"), ("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b"), ("x", "a1")]
BUDGET = Budget(
    members=2, epochs=4, batch_size=8, learning_rate=0.01, weight_decay=0.0, hidden=8, layers=1,
    dropout=0.2, device="cpu",
)  # fmt: skip


@pytest.fixture
def dataset():
    rng = np.random.default_rng(1)
    hierarchy = Hierarchy(EDGES)
    labels = [[str(name)] for name in rng.choice([n for n in hierarchy.nodes if n != "r"], 80)]
    targets = closed_targets(labels, hierarchy)
    rows = np.arange(80)
    noise = rng.normal(size=(80, 5))
    return Dataset(
        name="half way",
        features=(noise + targets @ rng.normal(size=(len(hierarchy), 5))).astype(np.float32),
        targets=targets,
        hierarchy=hierarchy,
        split={"train": rows[:50], "valid": rows[50:65], "test": rows[65:]},
        evaluated=~np.isin(hierarchy.nodes, hierarchy.roots),
        card={},
        unknown=unknown_below(targets, hierarchy),
    )


def known_to(dataset, node):
    """The data set of the training examples that say whether they belong to a node."""
    train = dataset.split["train"]
    column = dataset.unknown[:, [dataset.hierarchy.index[node]]].toarray().ravel()
    split = {**dataset.split, "train": train[column[train] == 0]}
    assert len(split["train"]) < len(train)
    return replace(dataset, split=split, unknown=None)


@pytest.mark.parametrize("kind", ["flat", "conditional"])
def test_a_regression_is_fitted_to_the_examples_that_know_its_node(dataset, kind):
    settings = LinearSettings(kind=kind)
    found = fit_linear(dataset, settings, ["train"])
    for node in ("a1", "b2", "x"):
        alone = fit_linear(known_to(dataset, node), settings, ["train"])
        j = dataset.hierarchy.index[node]
        np.testing.assert_allclose(found.weights[:, j], alone.weights[:, j], atol=1e-4)
        np.testing.assert_allclose(found.intercept[j], alone.intercept[j], atol=1e-4)


def test_neighbours_that_do_not_know_a_node_do_not_count_for_it(dataset):
    settings = NeighbourSettings(count=7, metric="euclidean")
    lookup = fit_neighbours(dataset, settings, ["train"])
    features = dataset.features[dataset.split["test"]]
    train = dataset.split["train"]
    truth, unknown = dataset.targets[train].toarray(), dataset.unknown[train].toarray()
    [(rows, distances)] = list(lookup.neighbours(features))
    weights = lookup._weights(distances)
    expected = np.empty((len(features), len(dataset.hierarchy)))
    for example in range(len(features)):
        for node in range(len(dataset.hierarchy)):
            known = unknown[rows[example], node] == 0
            counted = weights[example][known]
            if known.any():
                expected[example, node] = counted @ truth[rows[example][known], node]
                expected[example, node] /= counted.sum()
            else:
                expected[example, node] = truth[unknown[:, node] == 0, node].mean()
    expected = dataset.hierarchy.max_over_descendants(torch.from_numpy(expected)).numpy()
    np.testing.assert_allclose(lookup.predict(features), expected, atol=1e-6)


def test_leaves_of_a_forest_leave_out_who_does_not_know(dataset):
    settings = ForestSettings(trees=3, min_leaf=4)
    forest = fit_forest(dataset, settings, ["train"], seed=2)
    train = dataset.split["train"]
    features, truth = dataset.features[train], dataset.targets[train].toarray()
    unknown = dataset.unknown[train].toarray()
    grown, first = grow(features, dataset.targets[train].astype(float), settings, seed=2), 0
    for tree, drawn in zip(grown.estimators_, grown.estimators_samples_, strict=True):
        leaf = tree.apply(features)[drawn]
        for place in np.unique(leaf):
            rows = drawn[leaf == place]
            known = (unknown[rows] == 0).sum(axis=0)
            share = truth[rows].sum(axis=0) / np.maximum(known, 1)
            np.testing.assert_allclose(forest.shares[[first + place]].toarray()[0], share)
        first += tree.tree_.node_count
    predicted = forest.predict(dataset.features)
    child, parent = dataset.hierarchy.edge_index.numpy().T
    assert (predicted[:, child] <= predicted[:, parent]).all()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"focal": {"uncertainty": "gmu"}, "weights": {"mode": "binary"}, "mixture": 0.5},
        {"constraint": "conditional"},
        {"constraint": "conditional", "sparse": "moving"},
        {"constraint": "unconditional"},
        {"shift": {"kind": "prior", "strength": 1}},
        {"resampling": {"method": "lp-ros"}},
    ],
)
def test_networks_do_not_learn_what_is_unknown(dataset, settings):
    variant = read_settings(VariantSettings, {"about": "", **settings}, "variant")
    streams = Streams(0, "half way", "variant", 0)
    examples = resampled(variant, dataset, ["train"], streams.resampling())
    loss = build_loss(variant, examples, ["train"])
    trained = train_ensemble(examples, loss, BUDGET, streams)
    assert np.isfinite(trained.history["train_loss"]).all()
    closed = train_ensemble(
        replace(examples, unknown=None), loss, BUDGET, Streams(0, "half way", "variant", 0)
    )
    features = torch.from_numpy(dataset.features[dataset.split["test"]])
    own, other = (t.ensemble.predict(features, dataset.hierarchy) for t in (trained, closed))
    # Told that what it does not know is negative, it would think less of the deep nodes.
    deep = dataset.hierarchy.indices(["a1", "a2", "b1", "b2", "x"])
    assert own[:, deep].mean() > other[:, deep].mean()


def test_weights_and_shifts_are_of_the_share_that_the_loss_sees(dataset):
    counts = dataset.counts("train")
    known = dataset.known_counts("train")
    j = dataset.hierarchy.index["b1"]
    assert known[j] < 50
    variant = read_settings(
        VariantSettings, {"about": "", "shift": {"kind": "prior", "strength": 1}}, "variant"
    )
    shift = build_loss(variant, dataset).shift
    assert shift[j].item() == pytest.approx(np.log(counts[j] / (known[j] - counts[j])), rel=1e-5)
    conditional = {
        "about": "", "constraint": "conditional", "shift": {"kind": "conditional-prior", "strength": 1}
    }  # fmt: skip
    shift = build_loss(read_settings(VariantSettings, conditional, "variant"), dataset).shift
    b, leaves = dataset.hierarchy.index["b"], dataset.hierarchy.indices(["b1", "b2"])
    others = counts[leaves].sum()
    assert others < counts[b]  # some stop at b
    assert shift[j].item() == pytest.approx(
        np.log((counts[j] + 0.5) / (others - counts[j] + 0.5)), rel=1e-5
    )


def test_a_copy_of_fewer_labels_knows_that_it_is_without_the_others():
    hierarchy = Hierarchy(EDGES)
    labels = [["a", "b1"], ["a1"], ["a"], *[["b2"]] * 3, *[["a2"]] * 3]
    targets = closed_targets(labels, hierarchy)
    rows = np.arange(len(labels))
    dataset = Dataset(
        "copies", np.zeros((len(labels), 1), np.float32), targets, hierarchy,
        {"train": rows, "valid": rows[:0], "test": rows[:0]},
        np.array([name != "r" for name in hierarchy.nodes]), {},
        unknown=unknown_below(targets, hierarchy),
    )  # fmt: skip
    how = {"method": "hros-pd", "budget": 1, "copies": "truncated"}
    variant = read_settings(VariantSettings, {"about": "", "resampling": how}, "variant")
    examples = resampled(variant, dataset, ["train"], np.random.default_rng(0))
    assert examples.unknown.shape == examples.targets.shape
    copies = examples.targets[len(labels) :].toarray()
    originals = {tuple(row) for row in targets.toarray().tolist()}
    assert not {tuple(row) for row in copies.tolist()} <= originals  # some are of fewer labels
    known_negative = (examples.targets.toarray() == 0) & (examples.unknown.toarray() == 0)
    child, parent = hierarchy.edge_index.numpy().T
    assert not (known_negative[:, parent] & (examples.unknown.toarray()[:, child] == 1)).any()


def test_the_search_for_budgets_leaves_out_unknown_pairs(dataset):
    validation = Validation.of(dataset)
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.1, 0.9, (15, len(dataset.hierarchy))).astype(np.float32)
    found = validation.scores(scores)
    unknown = dataset.unknown[dataset.split["valid"]].toarray() == 1
    higher = np.where(unknown, 0.95, scores).astype(np.float32)
    assert unknown[:, dataset.evaluated].any()
    assert validation.scores(higher) == pytest.approx(found, nan_ok=True, abs=0)


@pytest.mark.parametrize("how", ["geometric", "arithmetic"])
def test_committees_leave_out_unknown_pairs(dataset, how):
    evaluated = dataset.evaluated
    rng = np.random.default_rng(0)
    unknown = unknown_in(dataset, "valid")
    silent = unknown.toarray() == 1
    targets = dataset.targets[dataset.split["valid"]][:, evaluated].toarray()
    good = np.clip(0.6 * targets + rng.uniform(0.05, 0.3, targets.shape), 0, 1)
    members = [good.astype(np.float32), rng.uniform(0.05, 1, targets.shape).astype(np.float32)]
    loud = [np.where(silent, 0.99, member).astype(np.float32) for member in members]
    traces = traces_of(np.full(targets.shape[1], 0.1), [True, False])
    positives = dataset.counts("train")[evaluated]
    weights = [
        choose_weights(some, targets, "validation", how, positives, traces, unknown)
        for some in (members, loud)
    ]
    if how == "geometric":
        np.testing.assert_array_equal(*weights)
    mean = combine(
        members, np.array([0.5, 0.5]), how, dataset.hierarchy, evaluated, traces, unknown
    )
    assert not mean[silent].any()
    assert mean[~silent].all()


def test_what_is_stored_is_read_again(dataset, tmp_path):
    dataset.save(tmp_path / "half_way")
    again = Dataset.load(tmp_path / "half_way")
    np.testing.assert_array_equal(again.unknown.toarray(), dataset.unknown.toarray())
    assert again.checksum() == dataset.checksum() != replace(dataset, unknown=None).checksum()


def test_what_cannot_be_unknown(dataset):
    with pytest.raises(ValueError, match="unknown is 80 × 2, expected 80 × 8"):
        replace(dataset, unknown=sparse.csr_array((80, 2), dtype=np.uint8))
    with pytest.raises(ValueError, match="example 0 is positive in node 'r' and unknown there"):
        replace(dataset, unknown=dataset.targets)
