"""How deep predictions reach: worked out by hand on two chains below one root."""

import numpy as np
import pytest

from rarenodes.scores.metrics import confusion_counts
from rarenodes.scores.reach import hierarchical_scores, reach, shares_short, summary

# Nodes a > b > c and x > y; the root is not evaluated.
DEPTH = np.array([1, 2, 3, 1, 2])
TARGETS = np.array(
    [
        [1, 1, 1, 0, 0],  # found to the end
        [1, 1, 1, 0, 0],  # stops a level short, and goes astray to y, deeper than b is right
        [1, 1, 1, 0, 0],  # only a wrong chain
        [1, 0, 0, 1, 1],  # nothing at all
        [0, 0, 0, 0, 0],  # has no label: counts in no mean over examples
    ]
)
SCORES = np.array(
    [
        [0.9, 0.8, 0.7, 0.1, 0.1],
        [0.9, 0.6, 0.2, 0.8, 0.7],
        [0.4, 0.3, 0.1, 0.9, 0.2],
        [0.4, 0.1, 0.1, 0.4, 0.3],
        [0.1, 0.1, 0.1, 0.6, 0.55],
    ]
)


@pytest.fixture
def found():
    return reach(SCORES, TARGETS, DEPTH, 0.5)


def test_depths_by_hand(found):
    assert found.true.tolist() == [3, 3, 3, 2, 0]
    assert found.reached.tolist() == [3, 2, 0, 0, 0]
    assert found.answered.tolist() == [3, 2, 1, 0, 2]
    # Of b and y, both at depth 2, the more probable y is the answer, and it is wrong.
    assert found.right.tolist() == [True, False, False, False, False]
    assert found.levels_short.tolist() == [0, 1, 3, 2, 0]


def test_means_leave_out_examples_without_a_label(found):
    means = summary(found)
    assert means == pytest.approx(
        {
            "examples": 4,
            "true_depth": 11 / 4,
            "reached_depth": 5 / 4,
            "levels_short": 6 / 4,
            "to_the_end": 1 / 4,
            "answered": 3 / 4,
            "answer_depth": 6 / 3,
            "answer_right": 1 / 3,
        }
    )
    some = summary(found, np.array([True, False, False, True, True]))
    assert (some["examples"], some["to_the_end"], some["answer_right"]) == (2, 0.5, 1)
    assert np.isnan(summary(found, np.zeros(5, dtype=bool))["reached_depth"])


def test_shares_by_levels_short(found):
    shares = shares_short(found)
    assert shares.to_dict() == {"0": 0.25, "1": 0.25, "2": 0, "3 or more": 0, "nothing": 0.5}
    assert shares_short(found, np.array([True, False, False, False, False]))["0"] == 1


def test_hierarchical_scores_pool_pairs_of_example_and_node(found):
    # Predicted: 3 + 4 + 1 + 0 + 2; of these true: 3 + 2; true in all: 3 + 3 + 3 + 3.
    precision, recall = 5 / 10, 5 / 12
    assert hierarchical_scores(found) == pytest.approx(
        {
            "hierarchical_precision": precision,
            "hierarchical_recall": recall,
            "hierarchical_f1": 2 * precision * recall / (precision + recall),
        }
    )
    nothing = reach(SCORES * 0, TARGETS, DEPTH, 0.5)
    assert set(hierarchical_scores(nothing).values()) == {0}
    assert summary(nothing)["answered"] == 0


def test_nodes_may_have_thresholds_of_their_own():
    found = reach(SCORES, TARGETS, DEPTH, np.array([0.3, 0.3, 0.05, 1.0, 1.0]))
    assert found.reached.tolist() == [3, 3, 3, 1, 0]


def test_what_is_predicted_at_a_threshold_is_what_the_scores_of_nodes_count():
    thresholds = np.array([0.9, 0.6, 0.2, 0.4, 0.3])  # scores that occur
    found = reach(SCORES.astype(np.float32), TARGETS, DEPTH, thresholds)
    hits, wrong, _ = confusion_counts(SCORES.astype(np.float32), TARGETS, thresholds)
    assert (found.predicted_true, found.predicted) == (hits.sum(), (hits + wrong).sum())


def test_depths_start_at_one():
    with pytest.raises(ValueError, match="depths must be at least 1, found 0"):
        reach(SCORES, TARGETS, DEPTH - 1, 0.5)
