"""Scores where of some pairs of an example and a node it is unknown what is true."""

from tempfile import TemporaryFile

import numpy as np
import pytest
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.targets import closed_targets, unknown_below
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.scores import metrics
from rarenodes.scores.run_tables import Predictions, node_table, score_run
from rarenodes.scores.stored import StoredScores
from rarenodes.scores.unknown import SilencedScores, known_share, silenced, unknown_in

NAMES = [f"n{i}" for i in range(12)]


@pytest.fixture
def dataset():
    rng = np.random.default_rng(3)
    edges = [(NAMES[i], NAMES[int(rng.integers(0, i))]) for i in range(1, len(NAMES))]
    hierarchy = Hierarchy(edges)
    labels = [rng.choice(NAMES, size=2).tolist() for _ in range(60)]
    targets = closed_targets(labels, hierarchy)
    rows = np.arange(60)
    return Dataset(
        name="half way",
        features=np.zeros((60, 1), np.float32),
        targets=targets,
        hierarchy=hierarchy,
        split={"train": rows[:10], "valid": rows[10:20], "test": rows[20:]},
        evaluated=~np.isin(hierarchy.nodes, hierarchy.roots),
        card={},
        unknown=unknown_below(targets, hierarchy),
    )


def predicted(dataset, part="test"):
    """Coherent probabilities of evaluated nodes, all above 0."""
    rng = np.random.default_rng(5)
    shape = (len(dataset.split[part]), int(dataset.evaluated.sum()))
    return rng.uniform(0.05, 0.95, shape).astype(np.float32)


def test_scores_are_those_of_the_known_pairs(dataset):
    unknown = unknown_in(dataset, "test")
    known = unknown.toarray() == 0
    assert 0 < (~known).sum() < known.size
    probabilities = predicted(dataset)
    given = Predictions(None, silenced(probabilities, unknown))
    table, pooled = score_run(dataset, given, node_table(dataset, ["train"]))
    truth = dataset.targets[dataset.split["test"]][:, dataset.evaluated].toarray()
    for column, row in table.iterrows():
        here = known[:, column]
        own, true = probabilities[here, column], truth[here, column].astype(bool)
        assert row["brier_score"] == pytest.approx(np.mean((own - true) ** 2))
        assert row["false_positives_half"] == ((own > 0.5) & ~true).sum()
        assert row["true_positives_half"] == ((own > 0.5) & true).sum()
        assert row["test_positives"] == true.sum()
        expected = metrics.average_precision(own[:, None], true[:, None])[0]
        assert row["average_precision"] == pytest.approx(expected, nan_ok=True)
    micro = metrics.micro_average_precision(probabilities[known][:, None], truth[known][:, None])
    assert pooled["micro_average_precision"] == pytest.approx(micro)


def test_it_matters(dataset):
    table = node_table(dataset, ["train"])
    probabilities = predicted(dataset)
    open_world = Predictions(None, silenced(probabilities, unknown_in(dataset, "test")))
    _, pooled = score_run(dataset, open_world, table)
    _, closed = score_run(dataset, Predictions(None, probabilities), table)
    assert pooled["micro_average_precision"] > closed["micro_average_precision"]


def test_scores_in_files_and_in_memory_are_the_same(dataset):
    unknown = unknown_in(dataset, "test")
    probabilities = predicted(dataset)
    table = node_table(dataset, ["train"])
    with TemporaryFile() as file:
        stored = StoredScores(file, *probabilities.shape)
        stored.write(0, probabilities)
        of_file, of_memory = (
            score_run(dataset, Predictions(None, scores), table, precisions_at=[2])
            for scores in (SilencedScores(stored, unknown), silenced(probabilities, unknown))
        )
    assert of_file[0].equals(of_memory[0])
    assert of_file[1] == pytest.approx(of_memory[1], nan_ok=True)


def test_the_share_that_is_known(dataset):
    unknown = dataset.unknown[dataset.split["test"]][:, dataset.evaluated].toarray()
    np.testing.assert_allclose(known_share(dataset, "test"), 1 - unknown.mean(axis=0))


def test_nothing_changes_where_nothing_is_unknown(dataset):
    probabilities = predicted(dataset)
    assert silenced(probabilities, None) is probabilities
    none = sparse.csr_array(probabilities.shape, dtype=np.uint8)
    assert silenced(probabilities, none) is probabilities
