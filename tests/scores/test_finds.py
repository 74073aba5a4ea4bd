"""Hits, misses and what was taken for what, worked out by hand."""

import numpy as np
import pytest

from rarenodes.scores.finds import NONE, finds

# Nodes: a, b, c of level 1; d of level 2. Examples 0 and 1 belong to a, 2 to b, 3 to a and d.
TRUTH = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1]], dtype=bool)
LEVELS = np.array([1, 1, 1, 2])
FIRST = np.array(
    [[0.9, 0.1, 0.2, 0.1], [0.2, 0.7, 0.8, 0.9], [0.6, 0.4, 0.1, 0.1], [0.3, 0.1, 0.1, 0.2]]
)
SECOND = np.array(
    [[0.9, 0.1, 0.2, 0.1], [0.2, 0.1, 0.7, 0.1], [0.1, 0.9, 0.1, 0.6], [0.4, 0.1, 0.2, 0.7]]
)


@pytest.fixture
def rows():
    return finds([FIRST, SECOND], [0.5, 0.5], TRUTH, LEVELS, [0, 1, 3]).set_index("node")


def test_hits_and_misses_are_means_over_runs(rows):
    assert rows["test_examples"].tolist() == [3, 1, 1]
    # a: example 0 in both runs; b: in the second; d: in the second.
    assert rows["hits"].tolist() == [1, 0.5, 0.5]
    assert rows["misses"].tolist() == [2, 0.5, 0.5]
    # a: example 2 in the first run; b: example 1 in the first; d: 1 in the first, 2 in the second.
    assert rows["false_alarms"].tolist() == [0.5, 0.5, 1]


def test_what_misses_are_taken_for_is_predicted_wrong_and_of_the_same_level(rows):
    # Misses of a: example 1 for c in both runs (b is predicted, too, but less probable), example 3
    # for nothing in both: c comes before nothing. Of b: example 2 for a. Of d: for nothing.
    assert rows["taken_for"].tolist() == [2, 0, NONE]
    assert rows["taken_for_share"].tolist() == [0.5, 1, 1]


def test_examples_are_those_found_or_missed_most_often(rows):
    assert rows["found"].tolist() == [0, 2, 3]
    assert rows["missed"].tolist() == [1, 2, 3]


def test_without_hits_or_misses_there_is_no_example():
    all_found = finds([TRUTH.astype(float)], [0.5], TRUTH, LEVELS, [0]).iloc[0]
    assert (all_found["found"], all_found["missed"], all_found["taken_for"]) == (0, NONE, NONE)
    assert np.isnan(all_found["taken_for_share"])
    none_found = finds([TRUTH * 0.1], [0.5], TRUTH, LEVELS, [0]).iloc[0]
    assert (none_found["found"], none_found["missed"]) == (NONE, 0)


def test_nodes_have_thresholds_of_their_own():
    own = np.array([0.5, 0.3, 0.5, 0.5])
    row = finds([FIRST], [own], TRUTH, LEVELS, [1]).iloc[0]
    assert (row["hits"], row["misses"]) == (1, 0)


def test_no_node_is_no_row():
    assert finds([FIRST], [0.5], TRUTH, LEVELS, []).empty
