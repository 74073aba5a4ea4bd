from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind, ttest_rel

from rarenodes.inference.bootstrap import bootstrap_scores, effective_positives, example_weights
from rarenodes.inference.difference import (
    EXAMPLES,
    EXAMPLES_AND_SEEDS,
    STAND_IN,
    Sample,
    compare,
    example_degrees_of_freedom,
    infer_difference,
    infer_score,
    sample_of,
    score_intervals,
)


def sample(estimates, replicates):
    """One column; a row of replicates per seed."""
    return Sample(np.array(estimates, float)[:, None], np.array(replicates, float)[:, :, None])


def still(estimates, replicates=6):
    """Scores that no choice of examples moves."""
    return sample(estimates, np.repeat(np.array(estimates)[:, None], replicates, axis=1))


WEIGHTS = example_weights(40, 6, np.random.default_rng(0))
FOUR = example_weights(40, 4, np.random.default_rng(0))


def test_seeds_and_what_examples_do_to_all_seeds_add_up():
    # s² of 0.1 and 0.3 is 0.02; both seeds' replicates go up and down by 0.1 together, so that
    # their covariance is 4 · 0.01 / 3.
    scores = sample([0.1, 0.3], [[0, 0.2, 0, 0.2], [0.2, 0.4, 0.2, 0.4]])
    result = infer_score(scores, FOUR)
    assert result.value == pytest.approx(0.2)
    assert result.seed_error == pytest.approx(0.01**0.5)
    assert result.example_error == pytest.approx((0.04 / 3) ** 0.5)
    assert result.standard_error == pytest.approx((0.01 + 0.04 / 3) ** 0.5)
    freedom = example_degrees_of_freedom(scores.replicates.mean(axis=0), FOUR)
    expected = (0.01 + 0.04 / 3) ** 2 / (0.01**2 / 1 + (0.04 / 3) ** 2 / freedom)
    assert result.degrees_of_freedom == pytest.approx(expected)
    assert result.covers == EXAMPLES_AND_SEEDS


def test_what_examples_do_to_one_seed_by_itself_is_in_the_spread_over_seeds():
    # The seeds' replicates go up and down against each other: their mean stands still.
    result = infer_score(sample([0.1, 0.3], [[0, 0.2, 0, 0.2], [0.4, 0.2, 0.4, 0.2]]), FOUR)
    assert result.example_error == 0
    assert result.standard_error == pytest.approx(0.1)
    assert result.degrees_of_freedom == pytest.approx(1)
    # Student's with one degree of freedom is Cauchy's: P(|t| > 2).
    assert result.p() == pytest.approx(1 - 2 / np.pi * np.arctan(2))


def test_a_spread_over_seeds_is_at_least_what_examples_do_to_each_seed():
    result = infer_score(sample([0.2, 0.2], [[0, 0.2, 0, 0.2], [0.4, 0.2, 0.4, 0.2]]), FOUR)
    assert result.standard_error == pytest.approx((0.04 / 3 / 2) ** 0.5)


def test_without_noise_of_examples_it_is_students_test():
    rng = np.random.default_rng(1)
    own, base = rng.normal(0.2, 0.1, 5), rng.normal(0.1, 0.1, 5)
    paired = infer_difference(still(own), still(base), WEIGHTS)
    expected = ttest_rel(own, base)
    assert paired.p() == pytest.approx(expected.pvalue)
    np.testing.assert_allclose(
        np.ravel(paired.interval(0.9)), expected.confidence_interval(0.9), rtol=1e-9
    )
    apart = infer_difference(still(own), still(base[:3]), WEIGHTS)
    expected = ttest_ind(own, base[:3], equal_var=False)
    assert apart.p() == pytest.approx(expected.pvalue)
    assert apart.degrees_of_freedom == pytest.approx(expected.df)
    assert apart.covers == EXAMPLES_AND_SEEDS
    forced = infer_difference(still(own), still(base), WEIGHTS, paired=False)
    assert forced.p() == pytest.approx(ttest_ind(own, base, equal_var=False).pvalue)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_lone_seed_is_taken_to_vary_as_the_other_variants_do(swapped):
    several, lone = np.array([0.30, 0.34, 0.29]), np.array([0.2])
    samples = (still(lone), still(several)) if swapped else (still(several), still(lone))
    result = infer_difference(*samples, WEIGHTS)
    assert result.p() == pytest.approx(ttest_ind(several, lone).pvalue)
    assert result.covers == STAND_IN
    assert result.value == pytest.approx((-1 if swapped else 1) * 0.11)


def test_one_seed_each_covers_examples_alone_and_says_so():
    own = sample([0.5], [[0.4, 0.6, 0.4, 0.6]])
    result = infer_difference(own, still([0.2], 4), FOUR)
    assert result.covers == EXAMPLES
    assert np.isnan(result.seed_error)
    assert result.standard_error == pytest.approx((0.04 / 3) ** 0.5)
    assert result.value == pytest.approx(0.3)
    apart = infer_difference(own, still([0.2], 4), FOUR, paired=False)
    assert apart.standard_error == pytest.approx(result.standard_error)


def test_unpaired_variances_by_brute_force():
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(1, 400))
    own = sample(rng.normal(size=3), rng.normal(size=(3, 400)) + 2 * shared)
    base = sample(rng.normal(size=4), rng.normal(size=(4, 400)) + shared)
    weights = example_weights(30, 400, rng)
    result = infer_difference(own, base, weights)
    covariance = np.cov(np.concatenate([own.replicates, base.replicates])[:, :, 0])

    def between_different(block):
        return block[~np.eye(len(block), dtype=bool)].mean()

    a, b = covariance[:3, :3], covariance[3:, 3:]
    c_a, c_b = between_different(a), between_different(b)
    s_a = max(own.estimates.var(ddof=1), np.trace(a) / 3 - c_a)
    s_b = max(base.estimates.var(ddof=1), np.trace(b) / 4 - c_b)
    examples = c_a + c_b - 2 * covariance[:3, 3:].mean()
    assert result.example_error == pytest.approx(examples**0.5)
    assert result.standard_error == pytest.approx((s_a / 3 + s_b / 4 + examples) ** 0.5)


def test_p_and_interval_are_one_statement():
    rng = np.random.default_rng(4)
    columns = Sample(rng.normal(0.5, 1, (3, 60)), rng.normal(size=(3, 200, 60)))
    result = infer_score(columns, example_weights(50, 200, rng))
    for confidence in (0.8, 0.95):
        lower, upper = result.interval(confidence)
        np.testing.assert_array_equal((lower > 0) | (upper < 0), result.p() < 1 - confidence)


def test_equal_in_every_replicate_is_no_difference_and_a_difference_without_noise_no_test():
    equal = infer_difference(still([0.2, 0.3]), still([0.2, 0.3]), WEIGHTS)
    assert equal.p() == 1
    np.testing.assert_array_equal(np.ravel(equal.interval()), [0, 0])
    other = infer_difference(still([0.3, 0.4]), still([0.2, 0.3]), WEIGHTS)
    assert np.isnan(other.p())


def test_replicates_without_a_score_are_left_out():
    values = [[0.0, 0.2, np.nan, 0.0, 0.2, np.nan]]
    result = infer_score(sample([0.1], values), WEIGHTS)
    assert result.standard_error == pytest.approx((0.04 / 3) ** 0.5)
    nothing = infer_score(sample([np.nan], [[np.nan] * 6]), WEIGHTS)
    assert np.isnan(nothing.p())


def test_unequal_numbers_of_seeds_are_no_pairs():
    with pytest.raises(ValueError, match="2 and 1 seeds cannot be pairs"):
        infer_difference(still([0.1, 0.2]), still([0.1]), WEIGHTS, paired=True)


def test_degrees_of_freedom_count_the_examples_that_carry_a_variance():
    rng = np.random.default_rng(0)
    weights = example_weights(400, 4000, rng)
    eight = np.zeros(400)
    eight[:8] = [1, -1] * 4
    many = rng.normal(size=400)
    few, lots = example_degrees_of_freedom(weights @ np.stack([eight, many], 1), weights)
    # A sum of m squares that are equally large has 2 m.
    assert few == pytest.approx(16, rel=0.15)
    assert 250 < lots <= 400


# --- on scores ----------------------------------------------------------------------------------


FAMILY = [("macro_average_precision", "with_positives"), ("macro_recall", "rare")]


def scored(strengths, seeds=3):
    rng = np.random.default_rng(0)
    weights = example_weights(200, 300, rng)
    targets = rng.random((200, 8)) < np.linspace(0.02, 0.4, 8)
    scores = {}
    for name, strength in strengths.items():
        noise = np.random.default_rng(1).normal(size=(seeds, 200, 8))
        noise += 0.3 * rng.normal(size=noise.shape)
        logits = noise + strength * targets - 1
        scores[name] = bootstrap_scores(
            (1 / (1 + np.exp(-logits))).astype(np.float32),
            targets,
            weights,
            groups={"rare": np.arange(8) < 3},
        )
    return scores


def test_comparison_finds_a_real_difference_and_no_other():
    scores = scored({"mcm": 1.0, "same": 1.0, "rare": 2.5})
    table = compare(scores, "mcm", FAMILY)
    assert list(table["variant"]) == ["same", "same", "rare", "rare"]
    assert table["p"].iloc[0] > 0.05
    assert table["lower"].iloc[2] > 0
    assert table["p"].iloc[2] < 0.01
    np.testing.assert_allclose(table["difference"], table["score"] - table["baseline_score"])
    assert (table["covers"] == EXAMPLES_AND_SEEDS).all()
    own, base = (sample_of(scores[name], FAMILY) for name in ("rare", "mcm"))
    by_hand = infer_difference(own, base, scores["mcm"].weights)
    np.testing.assert_allclose(table["standard_error"].iloc[2:], by_hand.standard_error)
    np.testing.assert_allclose(table["p"].iloc[2:], by_hand.p())


def test_the_one_seed_of_a_deterministic_variant_is_each_seeds_partner():
    scores = scored({"mcm": 1.0, "several": 1.3})
    first = scores["mcm"]
    neighbours = type(first)(
        first.estimates.head(1), first.replicates[:1], first.draw, first.weights, first.positives
    )
    scores = {"neighbours": neighbours, "several": scores["several"]}
    lone = compare(scores, "neighbours", FAMILY)
    known = compare(scores, "neighbours", FAMILY, deterministic=["neighbours"])
    assert list(lone["covers"]) == [STAND_IN] * 2
    assert list(known["covers"]) == [EXAMPLES_AND_SEEDS] * 2
    assert (known["standard_error"] < lone["standard_error"]).all()
    assert list(known["baseline_seeds"]) == [1, 1]
    np.testing.assert_allclose(known["difference"], lone["difference"])
    with pytest.raises(ValueError, match="'several' is declared deterministic, but has 3 seeds"):
        compare(scores, "neighbours", FAMILY, deterministic=["several"])


def test_score_intervals_are_about_the_mean_over_seeds():
    scores = scored({"mcm": 1.0})["mcm"]
    table = score_intervals(scores, FAMILY)
    np.testing.assert_allclose(table["score"], scores.estimate()[FAMILY])
    np.testing.assert_allclose(table["score"] - table["lower"], table["upper"] - table["score"])
    narrow = score_intervals(scores, FAMILY, confidence=0.5)
    assert (narrow["upper"] < table["upper"]).all()


def test_comparison_refuses_what_cannot_be_compared():
    scores = scored({"mcm": 1.0, "other": 1.0})
    with pytest.raises(ValueError, match="unknown baseline 'mcn'"):
        compare(scores, "mcn", FAMILY)
    with pytest.raises(ValueError, match="'mcm' has no scores"):
        compare(scores, "mcm", [("macro_f1", "common")])
    with pytest.raises(ValueError, match="only the baseline 'mcm' was given: there is nothing"):
        compare({"mcm": scores["mcm"]}, "mcm", FAMILY)
    elsewhere = replace(scores["other"], draw="another")
    with pytest.raises(ValueError, match="were scored with different example weights"):
        compare({"mcm": scores["mcm"], "other": elsewhere}, "mcm", FAMILY)


def test_effective_positives_by_hand():
    # Node 0 has examples 0, 1, 2, 3; node 1 example 3 alone.
    targets = np.array([[1, 0], [1, 0], [1, 0], [1, 1]], bool)
    groups = np.array([[True, False, True], [False, True, True]])
    # Together: 1/4, 1/4, 1/4 and 5/4 are 2, their squares 28/16; the counts 1, 1, 1, 2 are 5 and 7.
    macro = effective_positives(targets, groups)
    np.testing.assert_allclose(macro, [4, 1, 4 / (28 / 16)])
    np.testing.assert_allclose(effective_positives(targets, groups, macro=False), [4, 1, 25 / 7])
    np.testing.assert_array_equal(effective_positives(0 * targets, groups), [0, 0, 0])


def test_scores_carry_what_their_positives_are_worth():
    positives = scored({"mcm": 1.0})["mcm"].positives
    assert isinstance(positives, pd.Series)
    assert positives["macro_recall", "rare"] < positives["macro_recall", "with_positives"]
    assert positives["micro_recall", "all"] >= positives["macro_recall", "all"]
