"""Which nodes are predicted, worked out by hand and against the definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.models.selection import Children, above, most_probable, most_specific, paths

# Nodes in order: root, x, y, x1, x2.
TREE = Hierarchy([("x", "root"), ("y", "root"), ("x1", "x"), ("x2", "x")])
P = np.array([[1.0, 0.9, 0.3, 0.8, 0.2], [1.0, 0.4, 0.6, 0.4, 0.1]], dtype=np.float32)
BELOW_THE_ROOT = np.array([False, True, True, True, True])


def pairs(selected):
    return list(zip(selected.examples.tolist(), selected.nodes.tolist(), strict=True))


def test_most_probable_come_first_and_deeper_ones_among_equals():
    assert pairs(most_probable(P, 2, BELOW_THE_ROOT)) == [(0, 1), (0, 3), (1, 2), (1, 3)]


def test_no_more_than_there_are():
    leaves = np.isin(TREE.nodes, TREE.leaves)
    found = pairs(most_probable(P, 9, leaves & BELOW_THE_ROOT))
    assert found == [(0, 3), (0, 2), (0, 4), (1, 2), (1, 3), (1, 4)]


def test_what_is_above_a_threshold_is_predicted_most_probable_first():
    thresholds = np.array([np.nan, 0.9, 0.2, 0.5, 0.1])
    # 0.9 is not above 0.9, and nothing is above no threshold.
    assert pairs(above(P, thresholds, BELOW_THE_ROOT)) == [(0, 3), (0, 2), (0, 4), (1, 2)]


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [
        (0.8, [(0, 3), (1, 0)]),
        (0.85, [(0, 1), (1, 0)]),
        (0.4, [(0, 3), (1, 3), (1, 2)]),
        (0.2, [(0, 3), (0, 4), (0, 2), (1, 3), (1, 2)]),
    ],
)
def test_the_deepest_nodes_at_a_confidence(confidence, expected):
    assert pairs(most_specific(P, confidence, Children(TREE))) == expected


def test_nothing_where_no_node_is_certain_enough():
    assert pairs(most_specific(P * np.float32(0.5), 0.9, Children(TREE))) == []


DAG = Hierarchy([("a", "r"), ("b", "r"), ("c", "a"), ("d", "c"), ("d", "b"), ("e", "d")])


@given(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6), st.floats(0.01, 1))
def test_most_specific_is_what_its_definition_says(values, confidence):
    import torch

    coherent = DAG.max_over_descendants(torch.tensor([values])).numpy()
    reached = {n for n in range(6) if coherent[0, n] >= np.float32(confidence)}
    expected = {n for n in reached if not reached & set(DAG.children[n])}
    assert set(most_specific(coherent, confidence, Children(DAG)).nodes.tolist()) == expected


def test_paths_start_below_a_root_that_stands_alone():
    names = tuple(name.upper() for name in TREE.nodes)
    assert paths(TREE, names) == ["ROOT", "X", "Y", "X > X1", "X > X2"]


def test_paths_take_the_shortest_way_and_name_several_roots():
    found = dict(zip(DAG.nodes, paths(DAG, DAG.nodes), strict=True))
    assert found["d"] == "b > d"
    assert found["e"] == "b > d > e"
    two = Hierarchy([("c", "r1"), ("c", "r2")])
    assert paths(two, two.nodes) == ["r1", "r2", "r1 > c"]
