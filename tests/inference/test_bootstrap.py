import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from rarenodes.inference.bootstrap import (
    bootstrap_scores,
    example_weights,
    seed_weights,
    two_sided_p,
)
from rarenodes.inference.difference import infer_difference, infer_score, sample_of
from rarenodes.scores import metrics


def predictions(rng, seeds=2, examples=60, nodes=8, strength=2.0):
    """Tied scores, nodes of all frequencies, the last two without and with every example."""
    targets = rng.random((examples, nodes)) < np.linspace(0.02, 0.5, nodes)
    targets[:, -2], targets[:, -1] = False, True
    logits = rng.normal(size=(seeds, examples, nodes)) + strength * targets - 2
    return (1 / (1 + np.exp(-logits))).round(2).astype(np.float32), targets


def metric_scores(scores, targets, group, threshold=0.5):
    """The scores of one group of nodes, by `metrics`."""
    counts = metrics.confusion_counts(scores, targets, threshold)
    values = dict(
        zip(("precision", "recall", "f1"), metrics.precision_recall_f1(*counts), strict=True),
        average_precision=metrics.average_precision(scores, targets),
    )
    support = targets.sum(axis=0)[group]
    pooled = metrics.precision_recall_f1(*(np.atleast_1d(c[group].sum()) for c in counts))
    return {
        **{
            (f"macro_{name}", convention): metrics.macro(value[group], support, convention)
            for name, value in values.items()
            for convention in ("all", "with_positives")
        },
        **{
            f"micro_{name}": value.item()
            for name, value in zip(("precision", "recall", "f1"), pooled, strict=True)
        },
    }


def averaged(scores):
    """The scores of each replicate, averaged over seeds."""
    return pd.DataFrame(scores.replicates.mean(axis=0), columns=scores.estimates.columns)


def test_estimates_are_the_scores_of_metrics():
    rng = np.random.default_rng(0)
    probabilities, targets = predictions(rng)
    groups = {"first": np.arange(8) < 3, "none": np.arange(8) == 6}
    scores = bootstrap_scores(
        probabilities,
        sparse.csr_array(targets),
        example_weights(60, 3, rng),
        threshold=[0.5, 0.2],
        groups=groups,
        pooled_ranking=True,
    )
    for seed, threshold in enumerate([0.5, 0.2]):
        row, seed_scores = scores.estimates.loc[seed], probabilities[seed]
        everything = metric_scores(seed_scores, targets, np.ones(8, bool), threshold)
        first = metric_scores(seed_scores, targets, groups["first"], threshold)
        for measure in ("average_precision", "precision", "recall", "f1"):
            for convention in ("all", "with_positives"):
                expected = everything[f"macro_{measure}", convention]
                assert row[f"macro_{measure}", convention] == pytest.approx(expected, rel=1e-5)
            expected = first[f"macro_{measure}", "with_positives"]
            assert row[f"macro_{measure}", "first"] == pytest.approx(expected, rel=1e-5)
            assert np.isnan(row[f"macro_{measure}", "none"])
        for measure in ("precision", "recall", "f1"):
            expected = everything[f"micro_{measure}"]
            assert row[f"micro_{measure}", "all"] == pytest.approx(expected, rel=1e-5)
            assert row[f"micro_{measure}", "first"] == pytest.approx(first[f"micro_{measure}"])
        expected = metrics.micro_average_precision(seed_scores, targets)
        assert row["micro_average_precision", "all"] == pytest.approx(expected, rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_weights_stand_for_repeated_examples(seed):
    rng = np.random.default_rng(seed)
    probabilities, targets = predictions(rng, seeds=1, examples=25, nodes=6)
    weights = example_weights(25, 2, rng)
    single = {str(node): np.arange(6) == node for node in range(6)}
    scores = averaged(
        bootstrap_scores(probabilities, targets, weights, groups=single, pooled_ranking=True)
    )
    for replicate, row in enumerate(weights.astype(int)):
        repeated, repeated_targets = probabilities[0].repeat(row, 0), targets.repeat(row, 0)
        for node, group in single.items():
            expected = metric_scores(repeated, repeated_targets, group)
            for name in ("average_precision", "precision", "recall", "f1"):
                value = scores[f"macro_{name}", node][replicate]
                assert value == pytest.approx(
                    expected[f"macro_{name}", "with_positives"], rel=1e-5, nan_ok=True
                )
                if name != "average_precision":
                    value = scores[f"micro_{name}", node][replicate]
                    assert value == pytest.approx(expected[f"micro_{name}"], rel=1e-5)
        expected = metrics.micro_average_precision(repeated, repeated_targets)
        assert scores["micro_average_precision", "all"][replicate] == pytest.approx(expected)


def test_a_node_weighs_by_its_resampled_support():
    # Node 0: positives 0 (found) and 1 (missed); node 1: positive 2 (missed).
    probabilities = np.array([[[0.9, 0.0], [0.1, 0.0], [0.0, 0.1]]], np.float32)
    targets = np.array([[1, 0], [1, 0], [0, 1]], bool)
    weights = np.array([[2, 1, 0], [0, 1, 2], [3, 0, 0]], np.float32)
    scores = averaged(bootstrap_scores(probabilities, targets, weights))
    # Node weights 3/2 and 0; 1/2 and 2; 3/2 and 0. Recalls 2/3 and –; 0 and 0; 1 and –.
    np.testing.assert_allclose(scores["macro_recall", "with_positives"], [2 / 3, 0, 1])
    even = averaged(bootstrap_scores(probabilities, targets, np.ones((1, 3), np.float32)))
    assert even["macro_recall", "all"].item() == 0.25


def test_predicting_nothing_scores_zero():
    probabilities, targets = predictions(np.random.default_rng(0))
    scores = bootstrap_scores(
        0 * probabilities, targets, example_weights(60, 5, np.random.default_rng(1))
    )
    for measure in ("macro_f1", "macro_precision", "micro_precision"):
        assert (averaged(scores)[measure, "all"] == 0).all()


def test_without_ranking_the_other_scores_are_the_same():
    rng = np.random.default_rng(6)
    probabilities, targets = predictions(rng)
    weights = example_weights(len(targets), 20, rng)
    whole = bootstrap_scores(probabilities, targets, weights)
    counted = bootstrap_scores(probabilities, targets, weights, ranking=False)
    shared = [c for c in whole.estimates.columns if c[0] != "macro_average_precision"]
    assert list(counted.estimates.columns) == shared
    pd.testing.assert_frame_equal(counted.estimates, whole.estimates[shared])
    pd.testing.assert_frame_equal(averaged(counted), averaged(whole)[shared])


def test_every_node_may_have_a_threshold_of_its_own_in_every_seed():
    rng = np.random.default_rng(3)
    probabilities, targets = predictions(rng)
    of_nodes = rng.choice([0.1, 0.3, 0.6], size=8)
    weights = example_weights(60, 4, rng)
    scores = bootstrap_scores(probabilities, targets, weights, threshold=[of_nodes, 0.2])
    for seed, threshold in enumerate([of_nodes, 0.2]):
        expected = metric_scores(probabilities[seed], targets, np.ones(8, bool), threshold)
        row = scores.estimates.loc[seed]
        for measure in ("precision", "recall", "f1"):
            assert row[f"macro_{measure}", "all"] == pytest.approx(
                expected[f"macro_{measure}", "all"], rel=1e-5
            )
            assert row[f"micro_{measure}", "all"] == pytest.approx(expected[f"micro_{measure}"])
    same = [np.full(8, 0.2), np.full(8, 0.2)]
    np.testing.assert_array_equal(
        bootstrap_scores(probabilities, targets, weights, threshold=same).replicates,
        bootstrap_scores(probabilities, targets, weights, threshold=0.2).replicates,
    )


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_score_that_is_the_threshold_is_not_above_it(kind):
    probabilities, targets = np.full((1, 4, 2), 0.25, kind), np.ones((4, 2), bool)
    weights = np.ones((1, 4), np.float32)
    for threshold in (0.25, [np.full(2, 0.25)]):
        scores = bootstrap_scores(probabilities, targets, weights, threshold=threshold)
        assert (scores.estimates["macro_recall"] == 0).all(axis=None)


def test_half_precision_is_scored_as_single():
    probabilities, targets = predictions(np.random.default_rng(0))
    weights = example_weights(60, 5, np.random.default_rng(1))
    half = probabilities.astype(np.float16)
    np.testing.assert_array_equal(
        bootstrap_scores(half, targets, weights).replicates,
        bootstrap_scores(half.astype(np.float32), targets, weights).replicates,
    )


def test_example_weights_are_a_reproducible_draw_of_as_many_examples():
    weights = example_weights(50, 400, np.random.default_rng(0))
    assert (weights.sum(axis=1) == 50).all()
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.05)
    np.testing.assert_array_equal(weights, example_weights(50, 400, np.random.default_rng(0)))


def test_seed_weights_show_the_whole_variance_of_the_mean():
    weights = seed_weights(3, 20_000, np.random.default_rng(0))
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    values = np.array([0.1, 0.4, 0.2])
    assert (weights @ values).var() == pytest.approx(values.var(ddof=1) / 3, rel=0.03)
    assert (weights @ values).mean() == pytest.approx(values.mean(), abs=0.003)
    with pytest.raises(ValueError, match="1 seed shows no spread"):
        seed_weights(1, 10, np.random.default_rng(0))


def test_averages_and_spread_over_seeds():
    probabilities, targets = predictions(np.random.default_rng(0), seeds=3)
    scores = bootstrap_scores(
        probabilities, targets, example_weights(60, 4, np.random.default_rng(1))
    )
    column = ("macro_f1", "all")
    assert scores.seed_spread()[column] == pytest.approx(scores.estimates[column].std())
    assert scores.estimate()[column] == pytest.approx(scores.estimates[column].mean())


def test_p_by_hand():
    # Replicates 0 … 99, moved from their mean 49.5 to 47: 0, 1 and 2 lie at −2.5, −1.5 and −0.5.
    replicates = np.arange(100.0)
    assert two_sided_p(47.0, replicates) == pytest.approx(2 * (1 + 3) / 101)
    assert two_sided_p(500.0, replicates) == pytest.approx(2 / 101)
    assert two_sided_p(0.0, replicates) == 1


def test_rounding_errors_are_no_difference():
    assert two_sided_p(0.0, np.tile([1e-17, 2e-17, 0.0, 0.0], 50)) == 1


def test_replicates_without_a_score_are_left_out():
    replicates = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    np.testing.assert_allclose(two_sided_p(np.array([2.0, np.nan]), replicates), [2 / 3, np.nan])


def test_intervals_cover_although_nodes_are_rare():
    # Two positives expected a node; truth is the mean score over many test samples.
    rng = np.random.default_rng(5)
    examples, nodes, repetitions = 400, 50, 150
    columns = [
        (f"macro_{name}", "with_positives") for name in ("average_precision", "recall", "f1")
    ]
    estimates, bounds, replicates = [], [], []
    for _ in range(repetitions):
        targets = rng.random((examples, nodes)) < 2 / examples
        noise = rng.normal(size=(2, examples, nodes))
        noise[1] = 0.7 * noise[0] + 0.7 * noise[1]
        logits = noise + np.array([2.5, 1.9])[:, None, None] * targets - 1.5
        weights = example_weights(examples, 200, rng)
        # Two variants of one seed each.
        first, second = (
            sample_of(
                bootstrap_scores((1 / (1 + np.exp(-x))).astype(np.float32), targets, weights),
                columns,
            )
            for x in (logits[:1], logits[1:])
        )
        found = [infer_score(first, weights), infer_difference(first, second, weights)]
        estimates.append(np.concatenate([inference.value for inference in found]))
        bounds.append(np.hstack([inference.interval() for inference in found]))
        replicates.append(first.replicates[0])

    truth = np.mean(estimates, axis=0)
    bounds = np.array(bounds)
    covered = ((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).mean(axis=0)
    assert (covered >= 0.87).all()
    assert covered[[1, 4]].max() <= 0.99
    # Percentiles of the replicates are no intervals for F1.
    plain = np.quantile(replicates, [0.025, 0.975], axis=1)[..., 2]
    assert ((plain[0] <= truth[2]) & (truth[2] <= plain[1])).mean() < 0.7


def test_bad_input_is_explained():
    rng = np.random.default_rng(0)
    probabilities, targets = predictions(rng)
    weights = example_weights(60, 3, rng)
    with pytest.raises(ValueError, match=r"shape \(60, 8\) and targets of shape \(60, 7\)"):
        bootstrap_scores(probabilities, sparse.csr_array(targets[:, 1:]), weights)
    with pytest.raises(ValueError, match="weights are for 59 examples, but there are 60"):
        bootstrap_scores(probabilities, sparse.csr_array(targets), weights[:, 1:])
    broken = probabilities.copy()
    broken[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="NaN, first at example 2, node 3"):
        bootstrap_scores(broken, targets, weights)
    with pytest.raises(ValueError, match="no node has a positive example"):
        bootstrap_scores(probabilities, targets & ~targets, weights)
    with pytest.raises(ValueError, match="group 'all' is always there"):
        bootstrap_scores(probabilities, targets, weights, groups={"all": np.ones(8, bool)})
    with pytest.raises(ValueError, match="3 thresholds are given, but there are 2 seeds"):
        bootstrap_scores(probabilities, targets, weights, threshold=[0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"thresholds of seed 1 have shape \(7,\); expected one"):
        bootstrap_scores(
            probabilities, sparse.csr_array(targets), weights, threshold=[0.5, np.ones(7)]
        )
