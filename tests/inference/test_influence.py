import numpy as np
import pytest
from scipy import sparse

from rarenodes.inference.bootstrap import bootstrap_scores, example_weights
from rarenodes.inference.influence import RANKING, influences, linear_scores
from rarenodes.scores.metrics import average_precision
from rarenodes.scores.stored import BlockedScores

BINS = np.array([0, 0, 1, 1, 1, 2, 2, 3])  # the last group has a node without positives alone
UNIONS = {
    "with_positives": np.ones(4, bool),
    "first": np.array([True, False, False, False]),
    "two": np.array([True, True, False, False]),
    "none": np.array([False, False, False, True]),
}
LEVELS = (0.5, np.linspace(0.3, 0.7, 8))


def predictions(rng, seeds=2, examples=300, nodes=8, strength=2.0):
    """Tied scores, nodes of all frequencies, the last without any example."""
    targets = rng.random((examples, nodes)) < np.linspace(0.02, 0.3, nodes)
    targets[:, -1] = False
    logits = rng.normal(size=(seeds, examples, nodes)) + strength * targets - 2
    return (1 / (1 + np.exp(-logits))).round(2).astype(np.float32), targets


def linear(scores, targets, weights, column):
    """By `linear_scores`: average precision (0), or recall at one of `LEVELS`."""
    if column == 0:
        values = [np.nan_to_num(average_precision(of_seed, targets)) for of_seed in scores]
    else:
        hits = (scores > np.asarray(LEVELS[column - 1], np.float32)) & targets
        values = hits.sum(axis=1) / np.maximum(targets.sum(axis=0), 1)
    sums = [np.bincount(BINS, weights=of_seed, minlength=4) for of_seed in values]
    moves = [influences(of_seed, targets, LEVELS, BINS, 4)[column] for of_seed in scores]
    sparse_targets = sparse.csr_array(targets)
    return linear_scores(sums, moves, RANKING, sparse_targets, BINS, UNIONS, weights)


def bootstrapped(scores, targets, weights, column):
    """By `bootstrap_scores`, in the columns of `linear`."""
    level = LEVELS[max(column - 1, 0)]
    groups = {name: of_union[BINS] for name, of_union in UNIONS.items() if name != "with_positives"}
    thresholds = level if np.isscalar(level) else [level] * len(scores)
    given = (sparse.csr_array(targets), weights)
    found = bootstrap_scores(scores, *given, threshold=thresholds, groups=groups)
    measure = RANKING if column == 0 else "macro_recall"
    names = [(measure, name) for name in UNIONS if name != "none"]
    places = found.estimates.columns.get_indexer(names)
    return found.estimates[names].to_numpy(), found.replicates[:, :, places]


@pytest.mark.parametrize("column", range(3))
def test_estimates_are_those_of_the_bootstrap(column):
    rng = np.random.default_rng(3)
    scores, targets = predictions(rng)
    weights = example_weights(300, 3, rng)
    found = linear(scores, targets, weights, column)
    assert [name for _, name in found.estimates.columns] == ["with_positives", "first", "two"]
    expected, _ = bootstrapped(scores, targets, weights, column)
    np.testing.assert_allclose(found.estimates, expected, rtol=1e-6)


@pytest.mark.parametrize("column", range(3))
def test_a_small_change_of_one_weight_moves_scores_as_the_derivative_says(column):
    rng = np.random.default_rng(4)
    scores, targets = predictions(rng, seeds=1)
    step = 0.01
    changed = [np.flatnonzero(targets.any(axis=1))[:20], np.flatnonzero(~targets.any(axis=1))[:20]]
    moved = np.ones((40, 300), np.float32)
    moved[np.arange(40), np.concatenate(changed)] += step
    found = linear(scores, targets, moved, column)
    base, exact = bootstrapped(scores, targets, moved, column)
    # float32 in the bootstrap's sums leaves about 1e-7; second order about step² = 1e-4 of a move.
    np.testing.assert_allclose(
        (found.replicates[0] - base) / step, (exact[0] - base) / step, atol=3e-4
    )
    assert np.abs(exact[0] - base).max() > 1e-4  # they do move


@pytest.mark.parametrize("column", range(3))
def test_standard_errors_are_near_the_bootstraps(column):
    rng = np.random.default_rng(5)
    scores, targets = predictions(rng, examples=2000)
    weights = example_weights(2000, 1000, rng)
    found = linear(scores, targets, weights, column)
    _, exact = bootstrapped(scores, targets, weights, column)
    # Of a score, and of the difference of two runs.
    np.testing.assert_allclose(found.replicates.std(axis=1), exact.std(axis=1), rtol=0.1)
    np.testing.assert_allclose(
        (found.replicates[0] - found.replicates[1]).std(axis=0),
        (exact[0] - exact[1]).std(axis=0),
        rtol=0.12,
    )


def test_scores_looked_at_some_at_a_time_have_the_same_influences():
    rng = np.random.default_rng(6)
    scores, targets = predictions(rng, seeds=1)

    class InTwos(BlockedScores):
        shape = scores[0].shape

        def blocks(self):
            return (slice(start, start + 2) for start in range(0, 8, 2))

        def read(self, nodes):
            return scores[0][:, nodes]

    whole = influences(scores[0], targets, LEVELS, BINS, 4)
    np.testing.assert_array_equal(
        influences(InTwos(), sparse.csr_array(targets), LEVELS, BINS, 4), whole
    )
    # More weight for all changes no score: what all examples do together is the score of the groups.
    sums = np.bincount(BINS, weights=np.nan_to_num(average_precision(scores[0], targets)))
    np.testing.assert_allclose(whole[0].sum(axis=1), sums)
