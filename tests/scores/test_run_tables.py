import numpy as np
import pytest
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.scores import metrics
from rarenodes.scores.run_tables import Predictions, node_table, score_run, tune_thresholds

# root → a, b; a → c. Two examples for each part: train 0 and 1, valid 2 to 5, test 6 and 7.
EDGES = [("a", "root"), ("b", "root"), ("c", "a")]
LABELS = [["c"], ["b"], ["a"], ["b"], [], [], ["a"], ["c", "b"]]
# Validation scores of a, b, c.
VALID = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.5, 0.1, 0.1], [0.4, 0.1, 0.1]], np.float32)
TEST = np.array([[0.7, 0.2, 0.1], [0.55, 0.4, 0.35]], np.float32)


@pytest.fixture
def dataset():
    hierarchy = Hierarchy(EDGES)
    assert hierarchy.nodes == ("root", "a", "b", "c")
    above = {"a": ["a"], "b": ["b"], "c": ["a", "c"]}
    targets = np.zeros((8, 4), np.uint8)
    targets[:, 0] = 1
    for row, labels in enumerate(LABELS):
        for label in labels:
            targets[row, hierarchy.indices(above[label])] = 1
    return Dataset(
        name="small",
        features=np.zeros((8, 1), np.float32),
        targets=sparse.csr_array(targets),
        hierarchy=hierarchy,
        split={"train": np.arange(2), "valid": np.arange(2, 6), "test": np.arange(6, 8)},
        evaluated=np.array([False, True, True, True]),
        card={},
    )


def test_what_is_known_of_nodes_before_training(dataset):
    table = node_table(dataset, ["train", "valid"])
    assert table["node"].tolist() == ["a", "b", "c"]
    assert table["depth"].tolist() == [1, 1, 2]
    assert table["train_positives"].tolist() == [2, 2, 1]
    assert table["test_positives"].tolist() == [2, 1, 1]
    assert table["rarity"].tolist() == ["1–5", "1–5", "1–5"]


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        # Below 0.3 node a has 2/5 and node b has 1, better than 1 and 0 from 0.6.
        ("dataset", [0.29, 0.29, 0.29]),
        # Depth 1 decides for all; depth 2 has no positive.
        ("depth", [0.29, 0.29, 0.29]),
        # Node a is perfect from 0.6; the nearest to 0.29 of what is equally good.
        ("node", [0.6, 0.29, 0.29]),
    ],
)
def test_thresholds_of_each_scope(dataset, per, expected):
    predictions = Predictions(VALID, TEST)
    np.testing.assert_array_equal(tune_thresholds(dataset, predictions, per), expected)


def test_depths_have_thresholds_of_their_own(dataset):
    targets = dataset.targets.toarray()
    targets[2, 3] = 1
    labelled = Dataset(**{**vars(dataset), "targets": sparse.csr_array(targets)})
    valid = VALID.copy()
    valid[0, 2] = 0.05
    # For all, [0.1, 0.29]: 2/5, 1 and 0. Below 0.05 depth 2 has 2/5, and depth 1 2/5 twice.
    thresholds = tune_thresholds(labelled, Predictions(valid, TEST), "depth")
    np.testing.assert_array_equal(thresholds, [0.29, 0.29, 0.04])


def test_scores_are_counted_at_each_nodes_threshold(dataset):
    nodes = node_table(dataset, ["train"])
    table, pooled = score_run(dataset, Predictions(VALID, TEST), nodes, "node")
    assert table["threshold_tuned"].tolist() == [0.6, 0.29, 0.29]
    # Test positives: a and a, c, b; found: a at 0.7 but not 0.55, b at 0.4, c at 0.35.
    assert table["true_positives_tuned"].tolist() == [1, 1, 1]
    assert table["false_positives_tuned"].tolist() == [0, 0, 0]
    assert table["false_negatives_tuned"].tolist() == [1, 0, 0]
    assert table["true_positives_half"].tolist() == [2, 0, 0]
    assert pooled["macro_recall_all_tuned"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert np.isnan(pooled["threshold_tuned"])


def test_one_threshold_for_the_data_set_is_a_pooled_score_too(dataset):
    nodes = node_table(dataset, ["train"])
    table, pooled = score_run(dataset, Predictions(VALID, TEST), nodes)
    assert pooled["threshold_tuned"] == 0.29
    assert table["threshold_tuned"].tolist() == [0.29] * 3
    targets = dataset.targets[dataset.split["test"]][:, dataset.evaluated]
    expected = metrics.confusion_counts(TEST, targets, 0.29)
    for name, values in zip(("true_positives", "false_positives"), expected, strict=False):
        np.testing.assert_array_equal(table[f"{name}_tuned"], values)


@pytest.mark.parametrize("per", ["dataset", "depth", "node"])
def test_without_validation_data_everything_tuned_is_missing(dataset, per):
    nodes = node_table(dataset, ["train", "valid"])
    table, pooled = score_run(dataset, Predictions(None, TEST), nodes, per)
    tuned = [column for column in table if column.endswith("_tuned")]
    assert len(tuned) == 4
    assert table[tuned].isna().all(axis=None)
    assert all(np.isnan(value) == name.endswith("_tuned") for name, value in pooled.items())


def test_an_unknown_scope(dataset):
    with pytest.raises(ValueError, match="thresholds per 'leaf': expected one of 'dataset'"):
        # Past the type checker of the tests, as users are.
        tune_thresholds.__wrapped__(dataset, Predictions(VALID, TEST), "leaf")


def test_thresholds_need_a_positive(dataset):
    targets = dataset.targets.toarray()
    targets[dataset.split["valid"], 1:] = 0
    blank = Dataset(**{**vars(dataset), "targets": sparse.csr_array(targets)})
    with pytest.raises(ValueError, match="no node has a positive example"):
        tune_thresholds(blank, Predictions(VALID, TEST))
