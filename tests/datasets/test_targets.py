import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import descendants, hierarchies

from rarenodes.datasets.targets import (
    closed_targets,
    frequent_nodes,
    half_way,
    kept_targets,
    still_open,
    unknown_below,
)
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


def left_open(positives: set[int], hierarchy: Hierarchy) -> set[int]:
    """What `unknown_below` says, by its words: below a stop, and below no node that is negative."""
    below = descendants(hierarchy.nodes, hierarchy.edges)
    stops = [s for s in positives if not positives & set(hierarchy.children[s])]
    found = set().union(*(below[s] for s in stops)) - positives
    while True:
        kept = {node for node in found if set(hierarchy.parents[node]) <= positives | found}
        if kept == found:
            return found
        found = kept


@given(st.data(), hierarchies())
def test_what_is_below_a_stop_is_unknown_unless_another_parent_is_negative(data, hierarchy):
    labels = data.draw(st.lists(st.lists(st.sampled_from(hierarchy.nodes)), min_size=1, max_size=5))
    targets = closed_targets(labels, hierarchy)
    unknown = unknown_below(targets, hierarchy).toarray()
    for row, positive in zip(unknown, targets.toarray(), strict=True):
        expected = left_open(set(positive.nonzero()[0].tolist()), hierarchy)
        assert set(row.nonzero()[0].tolist()) == expected
        known_negative = (positive == 0) & (row == 0)
        child, parent = hierarchy.edge_index.numpy().T
        assert not (known_negative[parent] & (row[child] == 1)).any()


def test_what_a_label_leaves_open_by_hand():
    hierarchy = Hierarchy(
        [("cat", "mammal"), ("dog", "mammal"), ("mammal", "animal"), ("bird", "animal"),
         ("pet", "animal"), ("cat", "pet"), ("lap dog", "dog")]
    )  # fmt: skip
    names = [["mammal"], ["mammal", "pet"], ["cat"], ["mammal", "bird"], ["animal"], []]
    unknown = unknown_below(closed_targets(names, hierarchy), hierarchy).toarray()
    said = [{hierarchy.nodes[node] for node in row.nonzero()[0]} for row in unknown]
    # A mammal that is no pet is no cat.
    dogs = {"dog", "lap dog"}
    assert said == [dogs, dogs | {"cat"}, set(), dogs, set(hierarchy.nodes) - {"animal"}, set()]


def test_a_label_stops_where_it_was_given_and_not_where_nodes_are_left_out():
    hierarchy = Hierarchy([("a", "r"), ("b", "r"), ("a1", "a"), ("a2", "a")])
    labels = [["a1"], ["a1"], ["a2"], ["a"], ["b"], ["b"]]
    targets, kept, unknown = kept_targets(labels, hierarchy, 2, stops_leave_open=True)
    assert kept.nodes == ("r", "a", "b", "a1")
    assert targets.shape == unknown.shape
    # a2 is left out, and its example is known not to be an a1.
    assert unknown.toarray()[:, 3].tolist() == [0, 0, 0, 1, 0, 0]
    assert unknown.sum() == 1
    assert kept_targets(labels, hierarchy, 2)[2] is None


def test_what_is_still_open_in_a_copy_of_fewer_labels():
    hierarchy = Hierarchy([("a", "r"), ("b", "r"), ("a1", "a"), ("b1", "b")])
    targets = closed_targets([["a", "b"]], hierarchy)
    unknown = unknown_below(targets, hierarchy)
    assert unknown.sum() == 2
    left = still_open(unknown, closed_targets([["b"]], hierarchy), hierarchy).toarray()[0]
    assert [hierarchy.nodes[node] for node in left.nonzero()[0]] == ["b1"]
