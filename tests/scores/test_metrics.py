import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse
from sklearn.metrics import average_precision_score

from rarenodes.scores import metrics
from rarenodes.scores.metrics import (
    RARITY_BINS,
    THRESHOLDS,
    average_precision,
    brier_score,
    calibration,
    confusion_counts,
    f1_by_threshold,
    macro,
    micro_average_precision,
    precision_recall_curve,
    precision_recall_f1,
    rarity_bin,
    recall_at_matched_precision,
    score_nodes,
    threshold_sweep,
    tuned_thresholds,
)

# Nodes: ranked 1 0 1 0; all negative; all positive; two tied scores across the classes.
SCORES = np.array(
    [[0.9, 0.1, 0.9, 0.5], [0.8, 0.2, 0.8, 0.5], [0.7, 0.3, 0.7, 0.2], [0.1, 0.4, 0.6, 0.1]]
)
TARGETS = np.array([[1, 0, 1, 1], [0, 0, 1, 0], [1, 0, 1, 0], [0, 0, 1, 0]], dtype=bool)


@st.composite
def scores_and_targets(draw):
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 5)))
    # Few distinct scores, so that ties are the rule.
    scores = draw(arrays.arrays(np.float32, shape, elements=st.sampled_from([0, 0.25, 0.5, 0.75])))
    return scores, draw(arrays.arrays(bool, shape))


def test_average_precision_by_hand():
    expected = [(1 + 2 / 3) / 2, np.nan, 1.0, 0.5]
    np.testing.assert_allclose(average_precision(SCORES, TARGETS), expected)


@given(scores_and_targets())
def test_average_precision_agrees_with_scikit_learn_ties_included(case):
    scores, targets = case
    for node, value in enumerate(average_precision(scores, targets)):
        if targets[:, node].any():
            expected = average_precision_score(targets[:, node], scores[:, node])
            assert value == pytest.approx(expected)
        else:
            assert np.isnan(value)


@given(scores_and_targets())
def test_micro_average_precision_agrees_with_scikit_learn(case):
    scores, targets = case
    value = micro_average_precision(scores, targets)
    if targets.any():
        assert value == pytest.approx(average_precision_score(targets.ravel(), scores.ravel()))
    else:
        assert np.isnan(value)


def test_brier_score_by_hand():
    np.testing.assert_allclose(
        brier_score(SCORES[:, :2], TARGETS[:, :2]),
        [(0.01 + 0.64 + 0.09 + 0.01) / 4, (0.01 + 0.04 + 0.09 + 0.16) / 4],
    )


def test_counts_take_only_what_is_strictly_above_the_threshold():
    tp, fp, fn = confusion_counts(SCORES, TARGETS, 0.5)
    np.testing.assert_array_equal(tp, [2, 0, 4, 0])
    np.testing.assert_array_equal(fp, [1, 0, 0, 0])
    np.testing.assert_array_equal(fn, [0, 0, 0, 1])


def test_counts_with_a_threshold_for_each_node():
    tp, fp, fn = confusion_counts(SCORES, TARGETS, np.array([0.75, 0.35, 0.75, 0.4]))
    np.testing.assert_array_equal(tp, [1, 0, 2, 1])
    np.testing.assert_array_equal(fp, [1, 1, 0, 1])
    np.testing.assert_array_equal(fn, [1, 0, 2, 0])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_score_that_is_the_threshold_is_not_above_it(kind):
    scores = np.full((1, 1), 0.25, kind)
    tp, _, _ = confusion_counts(scores, np.ones((1, 1), bool), np.array([0.25]))
    assert tp.item() == 0


def test_half_precision_scores_meet_thresholds_in_single_precision():
    # 0.3 is 0.30005 in float16: above 0.3, and only a threshold rounded along with it hides that.
    scores = np.full((1, 1), 0.3, np.float16)
    tp, _, _ = confusion_counts(scores, np.ones((1, 1), bool), 0.3)
    assert tp.item() == 1


def test_precision_recall_f1_by_hand_and_zero_where_undefined():
    tp, fp, fn = np.array([2, 0, 0]), np.array([1, 0, 3]), np.array([2, 0, 0])
    precision, recall, f1 = precision_recall_f1(tp, fp, fn)
    np.testing.assert_allclose(precision, [2 / 3, 0, 0])
    np.testing.assert_allclose(recall, [0.5, 0, 0])
    np.testing.assert_allclose(f1, [4 / 7, 0, 0])


def test_score_nodes_has_a_row_per_node_and_takes_sparse_targets():
    table = score_nodes(SCORES, sparse.csr_array(TARGETS.astype(np.uint8)))
    assert list(table.columns) == [
        "true_positives",
        "false_positives",
        "false_negatives",
        "support",
        "average_precision",
        "brier_score",
    ]
    np.testing.assert_array_equal(table["support"], TARGETS.sum(axis=0))
    np.testing.assert_array_equal(table["average_precision"], average_precision(SCORES, TARGETS))
    pd.testing.assert_frame_equal(table, score_nodes(SCORES, TARGETS.astype(int)))


def test_macro_under_both_conventions():
    values, support = np.array([0.5, np.nan, 1.0]), np.array([3, 0, 1])
    assert macro(values, support, "all") == pytest.approx(0.5)
    assert macro(values, support, "with_positives") == pytest.approx(0.75)
    assert np.isnan(macro(values, np.zeros(3), "with_positives"))


def test_rarity_bins_have_their_edges_and_order():
    bins = rarity_bin(np.array([0, 1, 5, 6, 10, 11, 50, 51, 9999]))
    assert list(bins) == ["0", "1–5", "1–5", "6–10", "6–10", "11–50", "11–50", ">50", ">50"]
    assert tuple(bins.categories) == RARITY_BINS
    assert bins.ordered


@given(scores_and_targets(), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_matched_recall_is_the_best_of_all_thresholds(case, precision):
    scores, targets = case
    best = 0.0
    for threshold in (-1.0, 0.0, 0.25, 0.5):
        p, r, _ = precision_recall_f1(
            *map(np.atleast_1d, map(np.sum, confusion_counts(scores, targets, threshold)))
        )
        if p >= precision and (scores > threshold).any():
            best = max(best, r.item())
    value = recall_at_matched_precision(scores, targets, precision).micro_recall
    assert np.isnan(value) if not targets.any() else value == pytest.approx(best)


def test_matched_recall_lowers_the_threshold_as_far_as_precision_allows():
    scores = np.array([[0.9, 0.3], [0.6, 0.8], [0.2, 0.7]])
    targets = np.array([[1, 1], [0, 1], [1, 0]], dtype=bool)
    # By falling score, right or wrong: 1 1 0 0 1 1; precision 1, 1, 2/3, 1/2, 3/5, 2/3.
    assert recall_at_matched_precision(scores, targets, 1.0) == (0.5, 0.5, 0.8)
    assert recall_at_matched_precision(scores, targets, 0.65) == (1.0, 1.0, 0.2)
    assert recall_at_matched_precision(scores[:, 1:], targets[:, 1:], 1.0) == (0.5, 0.5, 0.8)


def test_matched_recall_sees_through_a_shift_of_the_threshold():
    rng = np.random.default_rng(0)
    targets = rng.random((200, 5)) < 0.2
    scores = 1 / (1 + np.exp(-(rng.normal(size=(200, 5)) + 2 * targets - 2)))
    shifted = np.sqrt(scores)
    tp, fp, _ = confusion_counts(scores, targets, 0.5)
    precision = tp.sum() / (tp.sum() + fp.sum())
    base = recall_at_matched_precision(scores, targets, precision)
    other = recall_at_matched_precision(shifted, targets, precision)
    assert other[:2] == base[:2]
    assert base.micro_recall >= tp.sum() / targets.sum()


def test_matched_recall_without_a_match_or_a_positive():
    scores, targets = np.array([[0.9], [0.5]]), np.array([[False], [True]])
    assert recall_at_matched_precision(scores, targets, 0.9) == (0.0, 0.0, np.inf)
    assert np.isnan(recall_at_matched_precision(scores, ~targets & targets, 0.9)).all()


def test_precision_recall_curve_starts_at_the_best_positive_and_ends_at_the_last():
    curve = precision_recall_curve(SCORES[:, :1], TARGETS[:, :1], points=3)
    np.testing.assert_allclose(curve["recall"], [0, 0.5, 1])
    np.testing.assert_allclose(curve["precision"], [1, 1, 2 / 3])
    np.testing.assert_allclose(curve["lowest_score"], [0.9, 0.9, 0.7])
    assert precision_recall_curve(SCORES[:, 1:2], TARGETS[:, 1:2]).empty


@given(scores_and_targets())
def test_sweep_agrees_with_counts_at_each_threshold(case):
    scores, targets = case
    sweep = threshold_sweep(scores, targets, [0.5, 0.1, 0.25])
    assert list(sweep["threshold"]) == [0.1, 0.25, 0.5]
    support = targets.sum(axis=0)
    for _, row in sweep.iterrows():
        counts = confusion_counts(scores, targets, row["threshold"])
        values = precision_recall_f1(*counts)
        pooled = precision_recall_f1(*(np.atleast_1d(count.sum()) for count in counts))
        for name, value, micro in zip(("precision", "recall", "f1"), values, pooled, strict=True):
            assert row[f"macro_{name}_all"] == pytest.approx(value.mean())
            expected = macro(value, support, "with_positives")
            assert row[f"macro_{name}_with_positives"] == pytest.approx(expected, nan_ok=True)
            assert row[f"micro_{name}"] == pytest.approx(micro.item())


def one_group(nodes):
    return np.zeros(nodes, dtype=int)


def tuned(scores, targets, groups, grid=THRESHOLDS):
    return tuned_thresholds(f1_by_threshold(scores, targets, grid), groups, grid)


def test_one_threshold_for_all_is_the_best_and_the_largest_of_equals():
    scores = np.array([[0.3], [0.6], [0.1], [0.2]])
    targets = np.array([[1], [1], [0], [0]], dtype=bool)
    # Perfect from 0.2 up to just below 0.3.
    assert tuned(scores, targets, one_group(1)) == [0.29]


def test_every_group_has_its_own_threshold():
    # Node 0 is perfect from 0.6 up to 0.8, node 1 from 0.1 up to 0.3, node 2 has no positive.
    scores = np.array([[0.8, 0.3, 0.9], [0.6, 0.1, 0.5], [0.5, 0.1, 0.4], [0.4, 0.1, 0.2]])
    targets = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]], dtype=bool)
    # One for all: from 0.6 node 0 has 1 and node 1 has 0; below 0.3, 2/5 and 1, which is better.
    np.testing.assert_array_equal(tuned(scores, targets, one_group(3)), 0.29)
    # Alone, node 0 goes no further from it than to 0.6, although 0.79 is as good.
    alone = tuned(scores, targets, np.arange(3))
    np.testing.assert_array_equal(alone, [0.6, 0.29, 0.29])
    # The other way round the groups are as they were, whatever they are called.
    pairs = tuned(scores, targets, np.array([7, 3, 7]))
    np.testing.assert_array_equal(pairs, [0.6, 0.29, 0.6])


def test_a_group_takes_the_larger_of_two_thresholds_as_near():
    scores = np.array([[0.8, 0.6], [0.4, 0.4], [0.6, 0.4], [0.3, 0.4]])
    targets = np.array([[1, 1], [1, 0], [0, 0], [0, 0]], dtype=bool)
    grid = [0.25, 0.5, 0.75]
    # F1 of node 0: 2/3, 1/2, 2/3; of node 1: 2/5, 1, 0. So 0.5 is best for all.
    assert tuned(scores, targets, one_group(2), grid).tolist() == [0.5, 0.5]
    assert tuned(scores, targets, np.arange(2), grid).tolist() == [0.75, 0.5]


@given(scores_and_targets(), st.sampled_from(["all", "each", "pairs"]))
def test_no_threshold_is_better_for_a_group_than_its_own(case, kind):
    scores, targets = case
    if not targets.any():
        return
    nodes = np.arange(targets.shape[1])
    groups = {"all": nodes * 0, "each": nodes, "pairs": nodes // 2}[kind]
    grid = [0.1, 0.3, 0.6]
    thresholds = tuned(scores, targets, groups, grid)
    assert set(thresholds) <= set(grid)

    def f1(threshold):
        _, _, values = precision_recall_f1(*confusion_counts(scores, targets, threshold))
        return values * targets.any(axis=0)

    own = f1(thresholds)
    for group in np.unique(groups):
        inside = groups == group
        assert len(set(thresholds[inside])) == 1
        for other in grid:
            assert own[inside].sum() >= f1(other)[inside].sum() - 1e-9


def test_positives_that_no_threshold_finds_leave_the_threshold_of_all():
    scores = np.array([[0.6, 0.0], [0.2, 0.5]])
    targets = np.array([[1, 1], [0, 0]], dtype=bool)
    np.testing.assert_array_equal(tuned(scores, targets, np.arange(2)), 0.59)


def test_thresholds_are_tuned_for_thousands_of_nodes_at_once():
    rng = np.random.default_rng(0)
    scores, targets = rng.random((50, 4000), np.float32), rng.random((50, 4000)) < 0.03
    thresholds = tuned(scores, sparse.csr_array(targets), np.arange(4000))
    some = np.flatnonzero(targets.any(axis=0))[:5]
    for node in some:
        f1 = threshold_sweep(scores[:, [node]], targets[:, [node]])["macro_f1_all"]
        at = precision_recall_f1(
            *confusion_counts(scores[:, [node]], targets[:, [node]], thresholds[node])
        )
        assert at[2].item() == pytest.approx(f1.max())


def test_calibration_of_calibrated_scores():
    rng = np.random.default_rng(1)
    scores = 10 ** rng.uniform(-4, 0, size=(5000, 20))
    targets = rng.random(scores.shape) < scores
    table = calibration(scores, targets, bins=12)
    assert table["count"].sum() == scores.size
    filled = table[table["count"] > 200]
    error = (filled["mean_predicted"] - filled["observed_frequency"]).abs()
    standard_error = np.sqrt(filled["mean_predicted"] / filled["count"])
    assert (error < 4 * standard_error + 1e-9).all()


def test_calibration_by_hand_with_empty_bins():
    scores = np.array([[0.0, 0.2], [1.0, 0.2]])
    table = calibration(scores, np.array([[0, 1], [1, 0]], dtype=bool), bins=3, smallest=0.1)
    np.testing.assert_allclose(table["lower"], [0, 0.1, 0.9])
    np.testing.assert_array_equal(table["count"], [1, 2, 1])
    np.testing.assert_allclose(table["observed_frequency"], [0, 0.5, 1])
    np.testing.assert_allclose(table["mean_predicted"], [0, 0.2, 1])
    empty = calibration(np.full((2, 1), 0.5), np.ones((2, 1), bool), bins=3)
    assert np.isnan(empty["mean_predicted"].iloc[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: average_precision(SCORES, sparse.csr_array((4, 3))),
            r"scores of shape \(4, 4\) and targets of shape \(4, 3\) must agree",
        ),
        (
            lambda: brier_score(np.array([[0.1, np.nan]]), np.array([[0, 1]])),
            "NaN, first at example 0, node 1",
        ),
        (lambda: brier_score(np.empty((0, 3)), np.empty((0, 3))), "nothing to score"),
        (lambda: average_precision(SCORES, TARGETS * 2), "targets must be 0 or 1"),
        (lambda: score_nodes(SCORES * 3, TARGETS), "outside .0, 1.: were logits passed?"),
        (lambda: recall_at_matched_precision(SCORES, TARGETS, 1.5), "precision 1.5 is outside"),
        (lambda: calibration(SCORES, TARGETS, bins=2), "at least 3"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_grid_of_thresholds_is_ascending_and_inside_the_unit_interval():
    grid = np.array(metrics.THRESHOLDS)
    assert (np.diff(grid) > 0).all()
    assert 0 < grid[0] < grid[-1] < 1
