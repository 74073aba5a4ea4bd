import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import hierarchies

from rarenodes.datasets.targets import closed_targets, frequent_nodes, half_way
from rarenodes.loss.hierarchy import Hierarchy


@given(st.data(), hierarchies())
def test_equals_the_closure_of_the_hierarchy(data, hierarchy):
    labels = data.draw(st.lists(st.lists(st.sampled_from(hierarchy.nodes)), min_size=1, max_size=5))
    plain = torch.zeros(len(labels), len(hierarchy), dtype=torch.uint8)
    for row, names in enumerate(labels):
        plain[row, hierarchy.indices(names)] = 1
    found = torch.tensor(closed_targets(labels, hierarchy).toarray())
    torch.testing.assert_close(found, hierarchy.close(plain))


def test_an_unknown_label():
    with pytest.raises(ValueError, match="unknown node 'c'"):
        closed_targets([["c"]], Hierarchy([("b", "a")]))


def test_rare_nodes_are_dropped_and_their_examples_go_to_the_nearest_kept_ancestor():
    hierarchy = Hierarchy([("a", "r"), ("b", "r"), ("a1", "a"), ("a2", "a")])
    targets = closed_targets([["a1"], ["a1"], ["a2"], ["b"]], hierarchy)
    targets, kept = frequent_nodes(targets, hierarchy, 2)
    assert kept.nodes == ("r", "a", "a1")
    assert targets.toarray().tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 0]]


def test_a_threshold_that_leaves_no_node():
    hierarchy = Hierarchy([("a", "r"), ("b", "r")])
    targets = closed_targets([["a"], ["a"], ["b"]], hierarchy)
    with pytest.raises(
        ValueError, match="min_count is 3, but no node below a root has more than 2"
    ):
        frequent_nodes(targets, hierarchy, 3)


def test_labels_that_stop_half_way_are_counted_by_node():
    hierarchy = Hierarchy(
        [("cat", "mammal"), ("dog", "mammal"), ("mammal", "animal"), ("bird", "animal")]
    )
    labels = [["cat"], ["mammal"], ["animal"], ["cat", "bird"], ["mammal", "cat"]]
    labels.append(["mammal", "bird"])
    counts = half_way(closed_targets(labels, hierarchy), hierarchy)
    assert dict(zip(hierarchy.nodes, counts.tolist(), strict=True)) == {
        "animal": 1, "bird": 0, "mammal": 2, "cat": 0, "dog": 0,
    }  # fmt: skip
