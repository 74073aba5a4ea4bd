"""Active nodes from sparse targets are those of the dense definition."""

import numpy as np
import pytest
import torch
from hypothesis import given
from scipy import sparse
from strategies import batches

from rarenodes.loss import active_nodes as module
from rarenodes.loss.active_nodes import active_nodes
from rarenodes.loss.conditional import active
from rarenodes.loss.hierarchy import Hierarchy

# root, A, B, C (of A and B), D (of C).
DIAMOND = Hierarchy([("A", "root"), ("B", "root"), ("C", "A"), ("C", "B"), ("D", "C")])
ROWS = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])


def test_active_nodes_of_the_diamond_by_hand():
    found = active_nodes(sparse.csr_array(ROWS), DIAMOND)
    assert found.starts.tolist() == [0, 3, 7, 8]
    # C waits for both its parents; a root is always asked.
    assert found.nodes.tolist() == [0, 1, 2, 0, 1, 2, 3, 0]
    assert found.positive.tolist() == [1, 1, 0, 1, 1, 1, 0, 0]
    assert found.examples().tolist() == [0, 0, 0, 1, 1, 1, 1, 2]


@given(batches())
def test_active_nodes_are_those_of_dense_targets(case):
    hierarchy, _, targets = case
    found = active_nodes(sparse.csr_array(targets.numpy()), hierarchy)
    expected = active(targets, hierarchy)
    dense = torch.zeros_like(expected)
    dense[found.examples(), found.nodes] = True
    assert torch.equal(dense, expected)
    assert len(found.nodes) == int(expected.sum())
    np.testing.assert_array_equal(found.positive, targets[expected].numpy())


def test_blocks_of_examples_change_nothing(monkeypatch):
    targets = sparse.csr_array(ROWS)
    whole = active_nodes(targets, DIAMOND)
    monkeypatch.setattr(module, "BLOCK", 2)
    blocks = active_nodes(targets, DIAMOND)
    for name in ("starts", "nodes", "positive"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(blocks, name))


def test_a_batch_takes_its_examples_in_its_order_and_as_often_as_it_says():
    found = active_nodes(sparse.csr_array(ROWS), DIAMOND).of(np.array([2, 0, 2]))
    assert found.starts.tolist() == [0, 1, 4, 5]
    assert found.nodes.tolist() == [0, 0, 1, 2, 0]
    assert found.positive.tolist() == [0, 1, 1, 0, 0]


def test_stored_zeros_are_no_positives_and_the_targets_stay_as_they_are():
    targets = sparse.csr_array(ROWS.astype(np.uint8))
    targets.data[0] = 0  # of the root of the first example
    targets[[0], [1]] = 0
    before = targets.copy()
    found = active_nodes(targets, DIAMOND)
    assert found.nodes[: found.starts[1]].tolist() == [0]
    np.testing.assert_array_equal(targets.data, before.data)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:, :4], r"targets must be \[examples, 5 nodes\], found shape \(3, 4\)"),
        (ROWS * 2, "targets must be 0 or 1, found 2 at example 0, node 'root'"),
        (
            [[1, 1, 1, 0, 0], [1, 1, 0, 1, 0]],
            "targets must be ancestor-closed, but example 1 has node 'C'",
        ),
    ],
)
def test_targets_that_cannot_be_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        active_nodes(sparse.csr_array(rows), DIAMOND)
