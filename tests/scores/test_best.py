"""The likeliest nodes of an example, and their precision, by hand."""

import tempfile

import numpy as np
import pytest
from scipy import sparse

from rarenodes.scores import best as module
from rarenodes.scores import stored as storage
from rarenodes.scores.best import NONE, best_nodes, precision_at
from rarenodes.scores.stored import StoredScores

SCORES = np.array(
    [[0.9, 0.1, 0.5, 0.5], [0.2, 0.3, 0.4, 0.1], [0.0, 0.0, 0.0, 0.7]], dtype=np.float32
)
TARGETS = sparse.csr_array([[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=np.uint8)
ALL = np.ones(4, dtype=bool)


@pytest.fixture(params=["in memory", "some examples at a time", "in blocks"])
def scores(request, monkeypatch):
    if request.param == "some examples at a time":
        monkeypatch.setattr(module, "AT_ONCE", 8)
    if request.param != "in blocks":
        yield SCORES
        return
    monkeypatch.setattr(storage, "NODES_AT_ONCE", 3)
    with tempfile.TemporaryFile() as file:
        written = StoredScores(file, *SCORES.shape)
        written.write(0, SCORES)
        yield written


def test_likeliest_first_and_of_equal_ones_the_first(scores):
    assert best_nodes(scores, 3, ALL).tolist() == [[0, 2, 3], [2, 1, 0], [3, 0, 1]]


def test_nodes_that_do_not_count_are_passed_over(scores):
    among = np.array([False, True, False, True])
    found = best_nodes(scores, 3, among)
    assert found.tolist() == [[3, 1, NONE], [1, 3, NONE], [3, 1, NONE]]
    # Of those nodes only the first example has one.
    assert precision_at(found[:, :1], 1, TARGETS, among) == 1
    assert precision_at(found, 3, TARGETS, among) == pytest.approx(1 / 3)


def test_precision_by_hand(scores):
    best = best_nodes(scores, 3, ALL)
    # The third example has no positives: it does not count.
    assert precision_at(best[:, :1], 1, TARGETS, ALL) == (1 + 0) / 2
    assert precision_at(best[:, :2], 2, TARGETS, ALL) == (1 / 2 + 0) / 2
    assert precision_at(best, 3, TARGETS, ALL) == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_without_positives_there_is_no_precision():
    none = sparse.csr_array((3, 4), dtype=np.uint8)
    assert np.isnan(precision_at(best_nodes(SCORES, 1, ALL), 1, none, ALL))
