import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from rarenodes.datasets.sampling import Sampling, SplitOptions
from rarenodes.settings import SettingsError, read_settings


def test_the_parts_share_nothing_and_miss_nothing():
    split = Sampling("any").split(101, SplitOptions())
    assert [len(split[part]) for part in ("train", "valid", "test")] == [61, 15, 25]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(split.values()))), np.arange(101))
    assert all((np.diff(rows) > 0).all() for rows in split.values())


def test_limiting_leaves_valid_and_test_alone_and_nests():
    splits = [Sampling("any", 3, f).split(100, SplitOptions()) for f in (1.0, 0.5, 0.1)]
    assert [len(split["train"]) for split in splits] == [60, 30, 6]
    for full, less in itertools.pairwise(splits):
        np.testing.assert_array_equal(full["test"], less["test"])
        np.testing.assert_array_equal(full["valid"], less["valid"])
        assert set(less["train"]) < set(full["train"])


def test_seeds_and_sources_are_split_independently():
    tests = [
        Sampling(source, seed).split(100, SplitOptions())["test"].tolist()
        for source, seed in [("a", 0), ("a", 0), ("a", 1), ("b", 0)]
    ]
    assert tests[0] == tests[1]
    assert tests[0] != tests[2] != tests[3] != tests[0]


@pytest.mark.parametrize("fraction", [0.0, 1.5, float("nan")])
def test_a_train_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match=r"any: train_fraction is .*; expected above 0, at most 1"):
        Sampling("any", 0, fraction)


def test_too_few_examples():
    with pytest.raises(ValueError, match="the part 'valid' of 3 examples is empty; expected at"):
        Sampling("any").split(3, SplitOptions())


def test_fractions_that_leave_nothing():
    with pytest.raises(
        SettingsError, match=r"here: valid_fraction 0\.5 and test_fraction 0\.5 lea"
    ):
        read_settings(SplitOptions, {"valid_fraction": 0.5, "test_fraction": 0.5}, "here")


@given(st.integers(0, 2**32), st.integers(30, 80), st.integers(1, 5), st.floats(0.05, 0.6))
def test_groups_stay_together_and_every_node_has_a_training_example(seed, n, largest, density):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n), rng.integers(1, largest + 1, n))
    groups = rng.permutation(groups)
    targets = sparse.csr_array(
        (rng.random((len(groups), 6)) < density).astype(np.uint8)
        | np.eye(len(groups), 6, dtype=np.uint8)
    )
    always = rng.random(len(groups)) < 0.1
    split = Sampling("any", seed).split_groups(groups, targets, SplitOptions(), always)
    np.testing.assert_array_equal(
        np.sort(np.concatenate(list(split.values()))), np.arange(len(groups))
    )
    sides = [set(groups[rows]) for rows in split.values()]
    assert sum(map(len, sides)) == n
    assert (targets[split["train"]].sum(axis=0) > 0).all()
    assert set(groups[always]) <= set(groups[split["train"]])
    assert len(split["test"]) <= round(0.25 * len(groups))
    assert len(split["valid"]) <= round(0.15 * len(groups))


def test_single_examples_fill_the_parts_exactly():
    everything = sparse.csr_array(np.ones((100, 1), dtype=np.uint8))
    split = Sampling("any").split_groups(np.arange(100), everything, SplitOptions())
    assert [len(split[part]) for part in ("train", "valid", "test")] == [60, 15, 25]


def test_a_node_of_one_group_is_learnt_and_not_tested():
    # Of eight nodes with one example each, none can be held out; the ninth node has the rest.
    rows = np.zeros((40, 9), dtype=np.uint8)
    rows[range(8), range(8)] = 1
    rows[8:, 8] = 1
    split = Sampling("any").split_groups(np.arange(40), sparse.csr_array(rows), SplitOptions())
    assert set(range(8)) <= set(split["train"])
    assert len(split["test"]) == 10


def test_groups_of_which_none_can_be_held_out():
    with pytest.raises(ValueError, match="any: the part 'test' of 4 examples is empty"):
        Sampling("any").split_groups(
            np.zeros(4, dtype=int),
            sparse.csr_array(np.ones((4, 1), dtype=np.uint8)),
            SplitOptions(),
        )
