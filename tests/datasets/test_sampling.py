import itertools

import numpy as np
import pytest

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
