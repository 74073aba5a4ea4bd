"""Scores from probabilities and targets: per node, macro, micro, by threshold, and calibration.

Everywhere: `scores` are probabilities `[examples, nodes]` of any float type, `targets` are 0/1 of the
same shape, dense or scipy sparse, and hold the evaluated nodes only. A node is predicted where its
score is above the threshold. float16 is widened to float32 first, so that a threshold such as 0.3 is
not rounded to what float16 can hold.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Num
from scipy import sparse
from scipy.special import expit, logit

from rarenodes.scores.stored import BlockedScores, Targets, in_blocks

Scores = Float[np.ndarray, "examples nodes"]
PerNode = Num[np.ndarray, " nodes"]
Convention = Literal["all", "with_positives"]

RARITY_BINS = ("0", "1–5", "6–10", "11–50", ">50")
_LARGEST_IN_BIN = (0, 5, 10, 50)

THRESHOLDS = (0.001, 0.002, 0.005, *(i / 100 for i in range(1, 100)), 0.995, 0.998, 0.999)


# --- per node -----------------------------------------------------------------------------------


def average_precision(scores: Scores, targets: Targets) -> Float[np.ndarray, " nodes"]:
    """Average precision of each node: the area under its precision–recall curve, as a step sum.

    Formula: `Σ_k (R_k − R_{k−1}) P_k` over the distinct scores, which is the mean over the node's
    positives of the precision among all examples that score at least as high. Ties are grouped; no
    interpolation.

    Args:
        scores: `[examples, nodes]`.
        targets: 0/1, same shape.

    Returns:
        `[nodes]` in (0, 1]; NaN where a node has no positive.

    Raises:
        ValueError: shapes that differ, scores that are not numbers.

    Source:
        scikit-learn's `average_precision_score`, one node at a time.

    """
    scores, targets = checked(scores, targets)
    result = np.full(scores.shape[1], np.nan)
    for node in np.flatnonzero(targets.any(axis=0)):
        curve = _curve(scores[:, node], targets[:, node])
        result[node] = np.mean(curve.hits / curve.predicted)
    return result


def brier_score(scores: Scores, targets: Targets) -> Float[np.ndarray, " nodes"]:
    """Brier score of each node: mean squared distance of probability and target. Lower is better.

    Args:
        scores: probabilities in [0, 1], `[examples, nodes]`.
        targets: 0/1, same shape.

    Returns:
        `[nodes]` in [0, 1].

    Raises:
        ValueError: shapes that differ, scores that are not numbers.

    """
    scores, targets = checked(scores, targets)
    return np.mean(np.square(scores - targets), axis=0, dtype=np.float64)


def predicted(
    scores: Scores, threshold: float | Float[np.ndarray, " nodes"]
) -> Bool[np.ndarray, "examples nodes"]:
    """Where a node is predicted: where it scores strictly above its threshold.

    Args:
        scores: `[examples, nodes]`.
        threshold: one for all nodes or `[nodes]`; compared in the scores' own precision.

    """
    return scores > np.asarray(threshold, dtype=scores.dtype)


def confusion_counts(
    scores: Scores, targets: Targets, threshold: float | Float[np.ndarray, " nodes"] = 0.5
) -> tuple[Int[np.ndarray, " nodes"], Int[np.ndarray, " nodes"], Int[np.ndarray, " nodes"]]:
    """True positives, false positives and false negatives of each node.

    Args:
        scores: `[examples, nodes]`.
        targets: 0/1, same shape.
        threshold: one for all nodes or `[nodes]`; predicted is what scores strictly above it.

    Returns:
        (true positives, false positives, false negatives), each `[nodes]`.

    Raises:
        ValueError: shapes that differ, scores that are not numbers.

    """
    scores, targets = checked(scores, targets)
    found = predicted(scores, threshold)
    true_positives = np.count_nonzero(found & targets, axis=0)
    false_positives = np.count_nonzero(found, axis=0) - true_positives
    false_negatives = np.count_nonzero(targets, axis=0) - true_positives
    return true_positives, false_positives, false_negatives


def precision_recall_f1(
    true_positives: Num[np.ndarray, "*shape"],
    false_positives: Num[np.ndarray, "*shape"],
    false_negatives: Num[np.ndarray, "*shape"],
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Precision, recall and F1, element by element; 0 where undefined (0/0), as in the paper's code.

    Formulas: `tp / (tp + fp)`, `tp / (tp + fn)`, `2 tp / (2 tp + fp + fn)`.

    Args:
        true_positives: counts, any shape.
        false_positives: counts, same shape.
        false_negatives: counts, same shape.

    Returns:
        (precision, recall, F1) in [0, 1], each of the given shape.

    """
    tp, fp, fn = true_positives, false_positives, false_negatives
    return _ratio(tp, tp + fp), _ratio(tp, tp + fn), _ratio(2 * tp, 2 * tp + fp + fn)


def micro_precision(scores: Scores, targets: Targets, threshold: float = 0.5) -> float:
    """Precision of all predictions together: `Σ tp / Σ (tp + fp)`; 0 where nothing is predicted.

    Args:
        scores: `[examples, nodes]`.
        targets: 0/1, same shape.
        threshold: predicted is what scores strictly above it.

    Returns:
        In [0, 1].

    Raises:
        ValueError: shapes that differ, scores that are not numbers.

    """
    counts = confusion_counts(scores, targets, threshold)
    precision, _, _ = precision_recall_f1(*(np.atleast_1d(count.sum()) for count in counts))
    return float(precision[0])


def score_nodes(probabilities: Scores, targets: Targets, threshold: float = 0.5) -> pd.DataFrame:
    """Everything the study keeps about each node, from which macro and micro scores follow.

    Args:
        probabilities: `[examples, nodes]` in [0, 1].
        targets: 0/1, same shape.
        threshold: of the counts; predicted is what lies strictly above it.

    Returns:
        A row per node, in the given order: `true_positives`, `false_positives`, `false_negatives`,
        `support` (positives), `average_precision` (NaN without positives), `brier_score`.

    Raises:
        ValueError: shapes that differ, probabilities that are not numbers or outside [0, 1].

    """
    scores, targets = checked(probabilities, targets)
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError(
            f"probabilities range from {scores.min():g} to {scores.max():g}, outside [0, 1]: "
            "were logits passed?"
        )
    tp, fp, fn = confusion_counts(scores, targets, threshold)
    return pd.DataFrame(
        {
            "true_positives": tp,
            "false_positives": fp,
            "false_negatives": fn,
            "support": tp + fn,
            "average_precision": average_precision(scores, targets),
            "brier_score": brier_score(scores, targets),
        }
    )


# --- over nodes ---------------------------------------------------------------------------------


def macro(values: PerNode, support: PerNode, convention: Convention) -> float:
    """Mean of per-node scores.

    Args:
        values: `[nodes]`, such as F1 or average precision.
        support: positives of each node in the scored examples, `[nodes]`.
        convention: `"all"`, the paper's: over all given nodes, an undefined value (NaN) counting 0;
            or `"with_positives"`: over the nodes with support, the only ones that can score.

    Returns:
        The mean; NaN where no node is left to average.

    Raises:
        ValueError: an unknown convention.

    """
    if convention == "all":
        values = np.nan_to_num(values, nan=0.0)
    elif convention == "with_positives":
        values = values[support > 0]
    else:
        raise ValueError(f"unknown convention {convention!r}: 'all' or 'with_positives'")
    return float(values.mean()) if len(values) else float("nan")


def rarity_bin(train_positives: PerNode) -> pd.Categorical:
    """How rare each node is in training: 0, 1–5, 6–10, 11–50 or more than 50 positives.

    Args:
        train_positives: training examples of each node, `[nodes]`, whole and not negative.

    Returns:
        `[nodes]`, ordered categories `RARITY_BINS`, rarest first.

    """
    return pd.Categorical.from_codes(
        np.searchsorted(_LARGEST_IN_BIN, train_positives, side="left"), RARITY_BINS, ordered=True
    )


def micro_average_precision(scores: Scores | BlockedScores, targets: Targets) -> float:
    """Average precision over all (example, node) pairs at once: C-HMCNN's AU(PRC).

    Args:
        scores: `[examples, nodes]`, evaluated nodes only, in memory or in a file.
        targets: 0/1, same shape.

    Returns:
        In (0, 1]; NaN without any positive.

    Raises:
        ValueError: shapes that differ, scores that are not numbers.

    """
    positive = np.concatenate([block[labels] for block, labels in _checked_blocks(scores, targets)])
    if not len(positive):
        return float("nan")
    positive.sort()
    hits = len(positive) - np.searchsorted(positive, positive, side="left")
    # Of all other scores it takes only how many reach a positive's, which adds up over blocks.
    predicted = sum(_reaching(block, positive) for block, _ in _checked_blocks(scores, targets))
    return float(np.mean(hits[::-1] / predicted[::-1]))


class MatchedRecall(NamedTuple):
    """Recall at a matched precision: what is predicted scores at least `lowest_score`."""

    micro_recall: float
    macro_recall: float
    lowest_score: float


def recall_at_matched_precision(
    scores: Scores, targets: Targets, precision: float
) -> MatchedRecall:
    """Recall at the threshold that costs no more precision than another variant's.

    A recall gain at a fixed threshold may be bought with precision, by a shift of the threshold
    alone. So a variant is given the precision of the baseline (its micro precision at 0.5), and the
    one threshold for all nodes is lowered as far as its own micro precision stays at least that.
    Precision is not monotone in the threshold; the lowest threshold that qualifies is taken. Both
    recalls only grow as the threshold falls, so it is the best for either, and there is nothing to
    choose between them.

    Micro precision is matched, not macro: macro precision gives 0 to a node that nothing is
    predicted for, so raising the threshold lowers it, and a match says little. Micro precision is
    that of the alarms of all nodes together and is ruled by the common ones; to match it among rare
    nodes, pass the columns of the rare nodes only, here and for the baseline.

    Args:
        scores: `[examples, nodes]`.
        targets: 0/1, same shape.
        precision: in [0, 1]. At 0 (a baseline that is never right) every threshold qualifies and
            recall is 1: such a match means nothing.

    Returns:
        Micro recall, macro recall over nodes with positives, and the lowest score still predicted.
        No threshold precise enough: 0, 0 and infinity. No positive: NaN.

    Raises:
        ValueError: shapes that differ, scores that are not numbers, a precision outside [0, 1].

    """
    _check_precision(precision)
    scores, targets = checked(scores, targets)
    curve = _curve(scores.ravel(), targets.ravel())
    if not len(curve.hits):
        return MatchedRecall(np.nan, np.nan, np.nan)
    qualifies = np.flatnonzero(curve.hits / curve.predicted >= precision)
    if not len(qualifies):
        return MatchedRecall(0.0, 0.0, np.inf)
    last = qualifies[-1]
    lowest = curve.scores[last]
    support = targets.sum(axis=0)
    recall = _ratio(((scores >= lowest) & targets).sum(axis=0), support)
    return MatchedRecall(
        micro_recall=float(curve.hits[last] / len(curve.hits)),
        macro_recall=macro(recall, support, "with_positives"),
        lowest_score=float(lowest),
    )


def precision_recall_curve(scores: Scores, targets: Targets, points: int = 101) -> pd.DataFrame:
    """The pooled precision–recall curve at evenly spaced recalls, for plotting.

    Args:
        scores: `[examples, nodes]`.
        targets: 0/1, same shape.
        points: number of recalls, from 0 to 1.

    Returns:
        A row per recall: `recall`, the `precision` where this recall is first reached as the
        threshold falls (not interpolated), and the `lowest_score` predicted there. Empty without
        any positive.

    Raises:
        ValueError: shapes that differ, scores that are not numbers.

    """
    curve = _pooled_curve(scores, targets)
    recalls = np.linspace(0, 1, points) if len(curve.hits) else np.empty(0)
    # Rounding keeps 0.07 * 100 = 7.000000000000001 from asking for an eighth positive.
    needed = np.ceil(np.round(recalls * len(curve.hits), 6)).astype(int)
    at = np.searchsorted(curve.hits, np.maximum(needed, 1), side="left")
    precision = curve.hits[at] / curve.predicted[at]
    return pd.DataFrame(
        {"recall": recalls, "precision": precision, "lowest_score": curve.scores[at]}
    )


# --- over thresholds ----------------------------------------------------------------------------


def threshold_sweep(
    scores: Scores, targets: Targets, thresholds: Sequence[float] = THRESHOLDS
) -> pd.DataFrame:
    """Macro and micro precision, recall and F1 at each of many thresholds.

    Args:
        scores: `[examples, nodes]`.
        targets: 0/1, same shape.
        thresholds: in any order, without repetition.

    Returns:
        A row per threshold, ascending: `threshold` and, for each measure of `precision`, `recall`
        and `f1`: `macro_<measure>_all`, `macro_<measure>_with_positives`, `micro_<measure>`.

    Raises:
        ValueError: shapes that differ, scores that are not numbers.

    """
    scores, targets = checked(scores, targets)
    thresholds = np.sort(thresholds)
    tp, predicted = _counts_above(scores, targets, thresholds.astype(scores.dtype))
    support = targets.sum(axis=0)[:, None]
    counts = tp, predicted - tp, support - tp
    per_node = precision_recall_f1(*counts)
    pooled = precision_recall_f1(*(count.sum(axis=0) for count in counts))
    table = {"threshold": thresholds}
    for name, values, micro in zip(("precision", "recall", "f1"), per_node, pooled, strict=True):
        for convention in ("all", "with_positives"):
            table[f"macro_{name}_{convention}"] = [
                macro(column, support[:, 0], convention) for column in values.T
            ]
        table[f"micro_{name}"] = micro
    return pd.DataFrame(table)


def f1_by_threshold(
    scores: Scores | BlockedScores,
    targets: Targets,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Float[np.ndarray, "nodes thresholds"]:
    """F1 of every node at each of many thresholds.

    Args:
        scores: `[examples, nodes]`, in memory or in a file.
        targets: 0/1, same shape.
        thresholds: ascending; by default 0.01 to 0.99 by 0.01, and a few nearer 0 and 1.

    Returns:
        `[nodes, thresholds]`; 0 for nodes without positives.

    Raises:
        ValueError: shapes that differ, scores that are not numbers.

    """
    found = []
    for block, labels in _checked_blocks(scores, targets):
        tp, predicted = _counts_above(block, labels, np.asarray(thresholds, block.dtype))
        support = labels.sum(axis=0)[:, None]
        _, _, f1 = precision_recall_f1(tp, predicted - tp, support - tp)
        found.append(f1)
    return np.concatenate(found)


def tuned_thresholds(
    f1: Float[np.ndarray, "nodes thresholds"],
    groups: Int[np.ndarray, " nodes"],
    thresholds: Sequence[float] = THRESHOLDS,
) -> Float[np.ndarray, " nodes"]:
    """For every group of nodes the threshold that maximises its own macro F1, by node.

    To be tuned on validation examples and used on test examples. The mean of F1 is over the nodes of
    a group that have positives. Of equally good thresholds a group takes the one nearest to that of
    all nodes together (which is the largest of those equally good for all), and the larger of two as
    near. So a group without positives, or with positives that no threshold finds, has the threshold
    of all.

    Why the nearest: with few positives many thresholds are equally good. For a node's only positive
    all are that lie between its score and the next one below. The largest would be just below the
    one score that was seen, and miss every positive that scores less; the nearest departs from what
    all nodes say only as far as the group's own examples demand.

    Thresholds that differ between nodes need not leave predictions coherent: a node may be predicted
    where its parent, with a higher threshold, is not. Scores of single nodes do not depend on that.

    Args:
        f1: on the validation part, from `f1_by_threshold`.
        groups: `[nodes]`, a number for each node, the same for the nodes of a group: constant for
            one threshold, depths, or all different.
        thresholds: those of `f1`, ascending.

    Returns:
        `[nodes]`, each node's threshold.

    """
    grid = np.asarray(thresholds)
    # Nodes without positives have no F1 but 0, and sums rank thresholds as means do.
    of_all = grid[_best(f1.sum(axis=0))].max()
    names, group = np.unique(groups, return_inverse=True)
    by_group = np.zeros((len(names), len(grid)))
    np.add.at(by_group, group, f1)
    distance = np.where(_best(by_group), np.abs(grid - of_all), np.inf)
    return np.where(_best(-distance), grid, -np.inf).max(axis=1)[group]


def _best(
    values: Float[np.ndarray, "*groups thresholds"],
) -> Bool[np.ndarray, "*groups thresholds"]:
    """Whether a value is its row's largest, but for rounding."""
    return values >= values.max(axis=-1, keepdims=True) - 1e-12


# --- calibration --------------------------------------------------------------------------------


def calibration(
    scores: Scores, targets: Targets, bins: int = 20, smallest: float = 1e-4
) -> pd.DataFrame:
    """How often what was predicted with a probability came true, over all (example, node) pairs.

    Nearly all probabilities of a large hierarchy are tiny, so bins of equal width would put them in
    one, and bins of equal count would tell nothing about the predictions. Bins here are evenly
    spaced in log-odds between `smallest` and `1 − smallest`; the outermost reach to 0 and 1.

    Args:
        scores: probabilities in [0, 1], `[examples, nodes]`.
        targets: 0/1, same shape.
        bins: how many, at least 3.
        smallest: upper edge of the first bin, in (0, 0.5).

    Returns:
        A row per bin, ascending: `lower`, `upper` (bin: lower < p <= upper, the first with its lower
        edge), `mean_predicted`, `observed_frequency` (NaN in an empty bin), `count` (pairs).

    Raises:
        ValueError: shapes that differ, scores that are not numbers, too few bins.

    """
    if bins < 3:
        raise ValueError(f"{bins} bins: at least 3 are needed")
    scores, targets = checked(scores, targets)
    inner = expit(np.linspace(logit(smallest), -logit(smallest), bins - 1))
    which = np.searchsorted(inner.astype(scores.dtype), scores.ravel(), side="left")
    count = np.bincount(which, minlength=bins)
    predicted = np.bincount(which, weights=scores.ravel(), minlength=bins)
    observed = np.bincount(which[targets.ravel()], minlength=bins)
    return pd.DataFrame(
        {
            "lower": [0.0, *inner],
            "upper": [*inner, 1.0],
            "mean_predicted": np.where(count > 0, _ratio(predicted, count), np.nan),
            "observed_frequency": np.where(count > 0, _ratio(observed, count), np.nan),
            "count": count,
        }
    )


# --- shared -------------------------------------------------------------------------------------


class _Curve(NamedTuple):
    """A ranking seen from its positives, by falling score; a curve's other points never matter.

    Between two positives recall stands still and precision only falls, so the step sum and every
    best recall at a precision are attained at scores of positives.
    """

    scores: np.ndarray
    hits: np.ndarray  # positives that score at least this
    predicted: np.ndarray  # examples that score at least this


def _curve(scores: np.ndarray, targets: np.ndarray) -> _Curve:
    positive = np.sort(scores[targets])
    hits = len(positive) - np.searchsorted(positive, positive, side="left")
    predicted = _reaching(scores, positive)
    return _Curve(positive[::-1], hits[::-1], predicted[::-1])


def _reaching(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How many of the scores are at least each level."""
    return scores.size - np.searchsorted(np.sort(scores, axis=None), levels, side="left")


def _checked_blocks(
    scores: Scores | BlockedScores, targets: Targets
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for block, labels in in_blocks(scores, targets):
        yield checked(block, labels)


def _pooled_curve(scores: Scores, targets: Targets) -> _Curve:
    scores, targets = checked(scores, targets)
    return _curve(scores.ravel(), targets.ravel())


def _counts_above(
    scores: np.ndarray, targets: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positives and examples of each node above each of the ascending thresholds: [nodes, T]."""
    nodes, bins = scores.shape[1], len(thresholds) + 1
    exceeded = np.searchsorted(thresholds, scores, side="left")
    cell = exceeded + np.arange(nodes) * bins

    def above(cells: np.ndarray) -> np.ndarray:
        histogram = np.bincount(cells, minlength=nodes * bins).reshape(nodes, bins)
        return histogram[:, ::-1].cumsum(axis=1)[:, -2::-1]

    return above(cell[targets]), above(cell.ravel())


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, 0 where the denominator is 0."""
    kind = np.result_type(numerator, denominator)
    kind = kind if np.issubdtype(kind, np.floating) else np.float64
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    return np.divide(numerator, denominator, out=np.zeros(shape, kind), where=denominator > 0)


def checked(
    scores: Scores, targets: Targets
) -> tuple[Float[np.ndarray, "examples nodes"], Bool[np.ndarray, "examples nodes"]]:
    """Scores of at least single precision and dense boolean targets, as every score needs them.

    Args:
        scores: `[examples, nodes]`.
        targets: 0/1, same shape, dense or sparse.

    Raises:
        ValueError: shapes that differ, nothing to score, scores that are NaN, targets not 0 or 1.

    """
    if scores.shape != targets.shape:
        raise ValueError(
            f"scores of shape {scores.shape} and targets of shape {targets.shape} must agree "
            "as [examples, nodes]"
        )
    if 0 in scores.shape:
        raise ValueError(f"nothing to score: scores have shape {scores.shape}")
    scores = scores.astype(np.float32) if scores.dtype == np.float16 else scores
    if np.isnan(scores).any():
        example, node = np.argwhere(np.isnan(scores))[0]
        raise ValueError(f"scores hold NaN, first at example {example}, node {node}")
    targets = targets.toarray() if sparse.issparse(targets) else targets
    if targets.dtype != bool:
        if not ((targets == 0) | (targets == 1)).all():  # many times faster than np.isin
            raise ValueError("targets must be 0 or 1")
        targets = targets.astype(bool)
    return scores, targets


def _check_precision(precision: float) -> None:
    if not 0 <= precision <= 1:
        raise ValueError(f"precision {precision} is outside [0, 1]")
