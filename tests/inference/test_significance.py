from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, wilcoxon

from rarenodes.inference.significance import (
    across_data_sets,
    average_ranks,
    bayesian_signed_rank,
    data_sets_needed,
    holm,
    pairwise_table,
    smallest_signed_rank_p,
    wilcoxon_signed_rank,
)


def brute_force_p(differences):
    """Share of all sign flips whose signed-rank sum is at least as far from even."""
    ranks = rankdata(np.abs(differences))[differences != 0]
    signs = np.sign(differences[differences != 0])
    sums = [np.dot(ranks, flip) for flip in product([-1, 1], repeat=len(ranks))]
    return np.mean(np.abs(sums) >= abs(np.dot(ranks, signs)) - 1e-9)


def test_holm_by_hand():
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1 is 0.03, 0.06, 0.04, and no value may fall.
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03])), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1.0, 1.0])


def test_holm_leaves_out_tests_that_could_not_be_made():
    np.testing.assert_allclose(holm(np.array([0.02, np.nan, 0.04])), [0.04, np.nan, 0.04])
    assert len(holm(np.empty(0))) == 0


@pytest.mark.parametrize("n", [1, 2, 5, 7, 12, 30])
def test_wilcoxon_agrees_with_scipy_without_ties(n):
    differences = np.random.default_rng(n).normal(0.3, size=n)
    expected = wilcoxon(differences, method="exact").pvalue
    assert wilcoxon_signed_rank(differences).p == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=8))
def test_wilcoxon_counts_all_sign_flips_with_ties_and_zeros(values):
    differences = np.array(values)
    expected = brute_force_p(differences) if differences.any() else 1.0
    assert wilcoxon_signed_rank(differences).p == pytest.approx(expected)


def test_wilcoxon_of_seven_equal_signs_is_the_smallest_there_is():
    result = wilcoxon_signed_rank(np.arange(1.0, 8.0))
    assert result.num_data_sets == 7
    assert result.p == result.smallest_p == 1 / 64
    assert result.rank_biserial == 1
    assert result.median == result.hodges_lehmann == 4
    # 28 Walsh averages; P(W+ <= 2) = 3/128 is the last tail below 2.5 %.
    assert (result.lower, result.upper) == (2.0, 6.0)
    assert result.attained_confidence == pytest.approx(1 - 6 / 128)


def test_effect_size_by_hand_is_diluted_by_zeros():
    # Ranks of |d|: 0 -> 1, -1 -> 2, 2 -> 3, 3 -> 4.
    result = wilcoxon_signed_rank(np.array([0.0, -1.0, 2.0, 3.0]))
    assert result.rank_biserial == pytest.approx((7 - 2) / 10)
    assert wilcoxon_signed_rank(-np.array([0.0, -1.0, 2.0, 3.0])).rank_biserial == -0.5


def test_rounding_errors_undo_neither_ties_nor_zeros():
    differences = np.array([0.3 - 0.2, 0.1 - 0.2, 0.1 + 0.2 - 0.3])
    assert len(set(np.abs(differences))) == 3
    result = wilcoxon_signed_rank(differences)
    assert result.p == 1
    assert result.rank_biserial == 0


@pytest.mark.parametrize(("n", "smallest"), [(1, 1.0), (2, 0.5), (5, 0.0625)])
def test_few_data_sets_bound_nothing(n, smallest):
    result = wilcoxon_signed_rank(np.arange(1.0, n + 1))
    assert result.p == result.smallest_p == smallest
    assert (result.lower, result.upper) == (-np.inf, np.inf)
    assert result.attained_confidence == 1


def test_six_data_sets_bound_the_shift_by_their_range():
    differences = np.array([0.3, 0.1, 0.5, 0.2, 0.9, 0.4])
    result = wilcoxon_signed_rank(differences)
    assert (result.lower, result.upper) == (0.1, 0.9)
    assert result.attained_confidence == 1 - 2 / 64
    # Asking for exactly what is attainable must not be lost to rounding.
    assert wilcoxon_signed_rank(differences, 1 - 2 / 64).lower == 0.1


def test_no_data_set_and_no_difference():
    nothing = wilcoxon_signed_rank(np.array([np.nan]))
    assert nothing.num_data_sets == 0
    assert nothing.p == nothing.smallest_p == 1
    assert np.isnan(nothing.median)
    level = wilcoxon_signed_rank(np.zeros(6))
    assert level.p == 1
    assert level.rank_biserial == 0


def test_interval_covers_at_least_as_often_as_it_says():
    rng = np.random.default_rng(3)
    results = [wilcoxon_signed_rank(d, 0.9) for d in rng.normal(1, 2, size=(400, 9))]
    covered = np.mean([r.lower <= 1 <= r.upper for r in results])
    assert covered >= results[0].attained_confidence - 0.03
    assert covered <= results[0].attained_confidence + 0.03
    # Interval and test are one statement.
    for d in rng.normal(0.5, 1, size=(50, 9)):
        r = wilcoxon_signed_rank(d, 0.9)
        assert (r.lower > 0 or r.upper < 0) == (r.p <= 1 - r.attained_confidence + 1e-12)


def test_bayesian_test_knows_clear_cases_and_mirrors():
    rng = np.random.default_rng(0)
    better = np.array([0.05, 0.06, 0.04, 0.07, 0.05, 0.06, 0.05])
    result = bayesian_signed_rank(better, 0.01, rng)
    assert result.better > 0.97
    assert sum(result) == pytest.approx(1)
    assert bayesian_signed_rank(-better, 0.01, rng).worse > 0.97
    assert bayesian_signed_rank(better / 100, 0.01, rng).equivalent == 1
    assert bayesian_signed_rank(np.empty(0), 0.01, rng, samples=100).equivalent == 1


def test_bayesian_test_of_one_data_set_by_hand():
    # Weight u on the data set, 1 − u on the 0: the pairs beyond the region are worth
    # u² (the mean d) or, with d/2 outside too, 1 − (1 − u)²; u is Beta(1, 0.5).
    inside = bayesian_signed_rank(np.array([0.015]), 0.01, np.random.default_rng(0)).better
    assert inside == pytest.approx((1 - 0.5**0.5) ** 0.5, abs=0.01)
    outside = bayesian_signed_rank(np.array([0.03]), 0.01, np.random.default_rng(0)).better
    assert outside == pytest.approx((0.5**0.5) ** 0.5, abs=0.01)


def test_bayesian_test_refuses_a_negative_region():
    with pytest.raises(ValueError, match="cannot be negative"):
        bayesian_signed_rank(np.ones(3), -0.01, np.random.default_rng(0))


TABLE = pd.DataFrame(
    {"mcm": [0.1, 0.2, 0.3, 0.4], "bce": [0.1, 0.1, 0.2, 0.3], "rare": [0.3, 0.35, 0.5, np.nan]},
    index=["a", "b", "c", "d"],
)


def compared(scores, baselines, rope=0.01):
    return pairwise_table(scores, baselines, rope=rope, rng=np.random.default_rng(0), samples=2_000)


def test_pairwise_table_has_each_pair_once_and_one_family():
    table = compared({"f1": TABLE, "ap": 2 * TABLE}, ["mcm", "bce"])
    pairs = list(zip(table["variant"], table["baseline"], strict=True))
    assert pairs[:3] == [("bce", "mcm"), ("rare", "mcm"), ("rare", "bce")]
    assert list(table["measure"]) == ["f1"] * 3 + ["ap"] * 3
    np.testing.assert_allclose(table["holm_p"], holm(table["p"].to_numpy()))
    assert list(table["num_data_sets"]) == [4, 3, 3] * 2
    # The family of six starts at 6 / 2³, and no step can come below.
    assert list(table["smallest_holm_p"]) == [0.75, 1, 1] * 2
    assert table["median"].iloc[1] == pytest.approx(0.2)
    np.testing.assert_allclose(table[["worse", "equivalent", "better"]].sum(axis=1), 1)


def test_pairwise_table_takes_a_region_for_each_measure():
    table = compared({"f1": TABLE, "ap": TABLE}, ["mcm"], rope={"f1": 0.01, "ap": 10.0})
    assert list(table["equivalent"])[2:] == [1, 1]


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_pairwise_table_of_hardly_any_data_set(rows):
    table = compared({"f1": TABLE.head(rows)}, ["mcm"])
    assert list(table["num_data_sets"]) == [rows, rows]
    assert (table["p"] >= table["smallest_p"]).all()
    assert list(table["smallest_p"]) == [[1, 1, 0.5][rows]] * 2


def test_pairwise_table_explains_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"f1: unknown baseline 'mcn': none of mcm, bce, rare"):
        compared({"f1": TABLE}, ["mcn"])
    with pytest.raises(ValueError, match="nothing to compare"):
        compared({"f1": TABLE[["mcm"]]}, ["mcm"])


def test_average_ranks_use_complete_data_sets_and_share_ties():
    ranks = average_ranks(TABLE)
    assert list(ranks.index) == ["rare", "mcm", "bce"]
    np.testing.assert_allclose(ranks, [1, (2.5 + 2 + 2) / 3, (2.5 + 3 + 3) / 3])


def test_smallest_p_and_the_data_sets_it_takes_by_hand():
    assert [smallest_signed_rank_p(n) for n in (0, 1, 2, 5, 6, 7)] == [
        1,
        1,
        1 / 2,
        1 / 16,
        1 / 32,
        1 / 64,
    ]
    # 1/32 is below 0.05; five of it are not, and 5/128 is.
    assert data_sets_needed(1, 0.05) == 6
    assert data_sets_needed(5, 0.05) == 8


def test_smallest_p_is_what_the_test_gives_at_best():
    for n in range(1, 10):
        assert wilcoxon_signed_rank(np.arange(1.0, n + 1)).p == smallest_signed_rank_p(n)


SEVEN = pd.DataFrame(
    {
        "mcm": [0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70],
        "better": [0.13, 0.22, 0.36, 0.41, 0.55, 0.67, 0.74],
        "worse": [0.09, 0.17, 0.28, 0.34, 0.45, 0.53, 0.62],
    }
)


def across(scores, **options):
    options = {"rope": 0.005, "samples": 2_000, **options}
    return across_data_sets({"f1": scores}, ["mcm"], rng=np.random.default_rng(0), **options)


def test_across_data_sets_better_is_better_and_worse_is_worse():
    result = across(SEVEN)
    assert result.reason is None
    tests = result.tests.set_index("variant")
    # Differences 3, 2, 6, 1, 5, 7, 4 hundredths; −1, −3, −2, −6, −5, −7, −8.
    assert tests.loc["better", "median"] == pytest.approx(0.04)
    assert tests.loc["worse", "median"] == pytest.approx(-0.05)
    assert list(tests["rank_biserial"]) == [1, -1]
    assert list(tests["p"]) == [1 / 64] * 2
    assert list(tests["holm_p"]) == [2 / 64] * 2
    assert tests.loc["better", "better"] > 0.9 > 0.1 > tests.loc["better", "worse"]
    assert tests.loc["worse", "worse"] > 0.9
    described = result.described.set_index("variant")
    assert list(described.loc["better", ["data_sets", "higher", "lower"]]) == [7, 7, 0]
    assert list(described.loc["worse", ["data_sets", "higher", "lower"]]) == [7, 0, 7]
    assert described.loc["better", "median"] == pytest.approx(0.04)
    assert described.loc["worse", "least"] == pytest.approx(-0.08)


def test_too_few_data_sets_give_a_reason_and_no_test():
    result = across(SEVEN.head(2))
    assert result.tests is None
    assert result.reason == (
        "No test across data sets: with 2 data sets the smallest two-sided p-value of a signed-rank "
        "test is 0.5, 1 after Holm's correction over 2 comparisons, so no outcome could have been "
        "significant at 0.05; that takes at least 7 data sets."
    )
    assert list(result.described["median"]) == pytest.approx([0.025, -0.02])
    assert np.isfinite(result.described.select_dtypes("number")).all(axis=None)
    # Six would do for one comparison, but not for two.
    assert across(SEVEN.head(6)).tests is None
    assert across(SEVEN.head(6)[["mcm", "worse"]]).tests is not None


def test_the_region_may_depend_on_the_baselines_score():
    # The baseline's mean is 0.4.
    result = across(SEVEN, rope=lambda score: score)
    assert list(result.tests["equivalent"]) == [1, 1]
    seen = []
    across(SEVEN, rope=lambda score: seen.append(score) or 0.0)
    assert seen == pytest.approx([0.4, 0.4])


def test_across_data_sets_needs_something_to_compare():
    with pytest.raises(ValueError, match="nothing to compare"):
        across(SEVEN[["mcm"]])
