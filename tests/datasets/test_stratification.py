"""Stratified parts: what holds of any targets, and small cases by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from rarenodes.datasets.sampling import Sampling, StratifiedOptions
from rarenodes.datasets.stratification import stratified_parts

SHARES = {"train": 0.6, "test": 0.25, "valid": 0.15}


def parts_of(rows, seed=0):
    targets = sparse.csr_array(np.array(rows, dtype=np.uint8))
    return stratified_parts(targets, SHARES, np.random.default_rng(seed))


@given(st.integers(0, 2**32), st.integers(5, 60), st.floats(0, 0.5))
def test_every_node_with_an_example_is_learnt(seed, examples, density):
    rng = np.random.default_rng(seed)
    rows = (rng.random((examples, 7)) < density).astype(np.uint8)
    rows[:, 0] = 1
    parts = parts_of(rows, seed)
    together = np.concatenate(list(parts.values()))
    np.testing.assert_array_equal(np.sort(together), np.arange(examples))
    np.testing.assert_array_equal(rows[parts["train"]].any(axis=0), rows.any(axis=0))


@pytest.mark.parametrize("seed", range(5))
def test_nodes_whose_shares_are_whole_get_them_exactly(seed):
    # Three nodes side by side, of 20, 40 and 60 examples, below a root.
    node = np.repeat([1, 2, 3], [20, 40, 60])
    rows = np.eye(4, dtype=np.uint8)[node]
    rows[:, 0] = 1
    rows = np.random.default_rng(seed).permutation(rows)
    counts = {
        name: rows[found].sum(axis=0).tolist() for name, found in parts_of(rows, seed).items()
    }
    assert counts == {
        "train": [72, 12, 24, 36], "test": [30, 5, 10, 15], "valid": [18, 3, 6, 9],
    }  # fmt: skip


def test_parts_get_their_share_of_nodes_that_are_too_rare_to_be_divided():
    # 400 nodes of two examples: one to learn from, the other for 0.2 train, 0.5 test, 0.3 valid.
    rows = np.repeat(np.eye(400, dtype=np.uint8), 2, axis=0)
    parts = parts_of(rows)
    assert (rows[parts["train"]].sum(axis=0) >= 1).all()
    assert len(parts["test"]) == pytest.approx(200, abs=40)
    assert len(parts["valid"]) == pytest.approx(120, abs=36)


def test_the_last_example_of_a_node_goes_to_training_whatever_its_other_nodes_want():
    # The second node's only example is also one of the first's, which wants no more in training.
    for seed in range(20):
        rows = np.zeros((20, 3), dtype=np.uint8)
        rows[:, 0] = 1
        rows[3, 1:] = 1
        assert 3 in parts_of(rows, seed)["train"]


def test_examples_without_a_node_are_divided_too():
    parts = parts_of(np.zeros((40, 2)))
    assert {name: len(rows) for name, rows in parts.items()} == {
        "train": 24, "test": 10, "valid": 6,
    }  # fmt: skip


def test_the_split_of_a_source_is_random_unless_asked_for():
    targets = sparse.csr_array(np.eye(40, dtype=np.uint8)[np.repeat(np.arange(8), 5)])
    sampling = Sampling("any", 3)
    plain = sampling.split_examples(targets, StratifiedOptions())
    for part, rows in sampling.split(40, StratifiedOptions()).items():
        np.testing.assert_array_equal(plain[part], rows)
    stratified = sampling.split_examples(targets, StratifiedOptions(stratified=True))
    assert (np.diff(stratified["train"]) > 0).all()
    assert (targets[stratified["train"]].sum(axis=0)[:8] >= 2).all()


def test_cards_of_random_splits_are_as_they_were():
    assert "stratified" not in StratifiedOptions().model_dump()
    assert StratifiedOptions(stratified=True).model_dump()["stratified"] is True
