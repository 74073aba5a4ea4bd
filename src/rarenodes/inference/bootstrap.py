"""Paired bootstrap over the test examples of one data set: scores of every seed in every replicate.

What a spread over replicates covers: which test examples happened to be drawn. `difference` adds the
randomness of training. Neither covers other data sets, other splits, tuning. The unit of evidence for
a method is the data set (`significance`); this module is for statements about one.

Two properties of rare nodes decide how a replicate is scored. The numbers are coverages of nominal
95 % intervals, of scores and of paired differences, in a simulation of 60 nodes with two expected
positives each (±2 points):

*Nodes without resampled positives.* A node with one positive has none in 37 % of the replicates.
Counting it as 0 would pull every macro score down. Leaving it out keeps the score in place, but such
a node's recall is then the same in every replicate in which it occurs, and intervals are too short
(macro recall: 87 %). So in a replicate a node weighs in the macro mean by its resampled
support over its own: 0 without positives, on average 1, and exactly 1 in the unweighted score. Macro
recall becomes a ratio of sums over examples, and its interval covers in 93 to 95 %.

*Repetition.* A positive drawn twice brings itself as a second hit at its own rank, so replicates of
average precision and of precision lie too high (macro F1 by a quarter): percentiles of replicates
cover macro F1 in 34 % and average precision in 86 %. So only their variance is used, around
the score itself (`difference`; a test repeats the gist). Smooth (Dirichlet) weights are no cure.

With 40 positives in a whole group, coverage fell to 87 to 93 %: read intervals of small bins as short.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from scipy import sparse
from torch.nn.functional import embedding_bag

from rarenodes.scores.metrics import Targets, checked, precision_recall_f1

# Replicates scored at once: their weights for 4,000 examples fill the 4 MB that stay in cache.
_CHUNK = 256

_MACRO = ("macro_average_precision", "macro_precision", "macro_recall", "macro_f1")
_MICRO = ("micro_precision", "micro_recall", "micro_f1")


def example_weights(
    num_examples: int, replicates: int, rng: np.random.Generator
) -> Float[np.ndarray, "replicates examples"]:
    """How often each example is drawn in each replicate: draw once per data set, use for all variants.

    Args:
        num_examples: test examples.
        replicates: for example 1,000.
        rng: source of the draw.

    Returns:
        Whole numbers as float32; each row sums to `num_examples`.

    """
    drawn = rng.integers(num_examples, size=(replicates, num_examples))
    cells = drawn + np.arange(replicates)[:, None] * num_examples
    counts = np.bincount(cells.ravel(), minlength=replicates * num_examples)
    return counts.reshape(replicates, num_examples).astype(np.float32)


def seed_weights(
    num_seeds: int, replicates: int, rng: np.random.Generator
) -> Float[np.ndarray, "replicates seeds"]:
    """Weights of the seeds in each replicate, for intervals that cover the randomness of training.

    Seeds are drawn with replacement. Plain resampling of S values shows only (S − 1)/S of the variance
    of their mean, two thirds with three seeds; so each draw's distance from even weights is stretched
    by `√(S/(S − 1))`. A weight may therefore be slightly negative. No resampling mends that a spread
    estimated from three seeds is itself uncertain: where seeds differ more than test samples do, such
    an interval is still too short.

    Args:
        num_seeds: seeds, at least 2.
        replicates: as many as of the examples.
        rng: source of the draw.

    Returns:
        `[replicates, seeds]`; each row sums to 1.

    Raises:
        ValueError: fewer than two seeds.

    """
    if num_seeds < 2:
        raise ValueError(f"{num_seeds} seed shows no spread of training: at least 2 are needed")
    drawn = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=replicates)
    stretch = np.sqrt(num_seeds / (num_seeds - 1))
    return 1 / num_seeds + stretch * (drawn - 1) / num_seeds


@dataclass(frozen=True)
class BootstrapScores:
    """Scores of one variant on one data set: by seed, as measured and in every replicate.

    Attributes:
        estimates: a row per seed; columns (measure, nodes), see `bootstrap_scores`.
        replicates: `[seeds, replicates, columns]`, in the order of the columns of `estimates`.
        draw: fingerprint of the example weights; scores of one comparison must share it.
        weights: the example weights of the replicates, `[replicates, examples]`.
        positives: for each column how many equal positives its group's are worth, see
            `effective_positives`.

    """

    estimates: pd.DataFrame
    replicates: Float[np.ndarray, "seeds replicates columns"]
    draw: str
    weights: Float[np.ndarray, "replicates examples"]
    positives: pd.Series

    def estimate(self) -> pd.Series:
        """The scores, averaged over seeds."""
        return self.estimates.mean()

    def seed_spread(self) -> pd.Series:
        """Standard deviation over seeds, the randomness of training alone; NaN with one seed."""
        return self.estimates.std(ddof=1)


def bootstrap_scores(
    probabilities: Float[np.ndarray, "seeds examples nodes"],
    targets: Targets,
    weights: Float[np.ndarray, "replicates _"],
    *,
    threshold: float | Sequence[float | Float[np.ndarray, " _"]] = 0.5,
    groups: Mapping[str, Bool[np.ndarray, " nodes"]] | None = None,
    ranking: bool = True,
    pooled_ranking: bool = False,
) -> BootstrapScores:
    """Macro and micro scores under each row of example weights, and under even weights.

    With w the weights of a replicate: counts of a node are `Σ w` over the examples concerned; its
    average precision is `Σ_i w_i P_i / Σ_i w_i` over its positives i, where `P_i` is the weighted share
    of positives among the examples that score at least as high as i.

    Columns are (measure, nodes). `nodes` is `"all"`, `"with_positives"` (in the test examples) or one of
    `groups`. Macro scores are means over the nodes with positives, each weighing by its resampled
    support over its own (the module says why); under `"all"` they are multiplied by the share of
    nodes that have positives, as the paper's convention gives 0 to the others whatever is predicted.
    Micro scores pool the counts of all nodes of the group. A group without (resampled) positives has
    NaN macro scores.

    Args:
        probabilities: `[seeds, examples, nodes]`, evaluated nodes only.
        targets: 0/1, `[examples, nodes]`, dense or sparse.
        weights: `[replicates, examples]` from `example_weights`, the same for all variants of a
            comparison.
        threshold: predicted is what lies above it; one number, or for each seed one number or
            `[nodes]`.
        groups: further groups of nodes by name, such as rarity bins.
        ranking: also macro average precision, which takes most of the time and is the same at every
            threshold.
        pooled_ranking: also `("micro_average_precision", "all")`, which takes twice as long as all
            the rest.

    Returns:
        Scores by seed; with even weights they are those of `metrics`.

    Raises:
        ValueError: shapes that differ, probabilities that are not numbers, no positive at all, a
            group with the name of a built-in one, thresholds that do not fit seeds or nodes.

    """
    if weights.shape[1] != targets.shape[0]:
        raise ValueError(
            f"weights are for {weights.shape[1]} examples, but there are {targets.shape[0]}"
        )
    if not targets.sum():
        raise ValueError("no node has a positive example: there is nothing to score")
    thresholds = _thresholds(threshold, len(probabilities), targets.shape[1])
    chunks, values = list(_chunks(weights)), []
    for seed, level in zip(probabilities, thresholds, strict=True):
        scores, dense = checked(seed, targets)
        masks = _groups(dense, groups or {})
        scorer = _Scorer(scores, dense, level.astype(scores.dtype), masks, ranking, pooled_ranking)
        values.append(np.concatenate([scorer.scores(chunk) for chunk in chunks], axis=1).T)
    values = np.stack(values).astype(np.float64)
    names = _columns(masks, ranking, pooled_ranking)
    columns = pd.MultiIndex.from_tuples(names, names=["measure", "nodes"])
    return BootstrapScores(
        estimates=pd.DataFrame(
            values[:, 0], columns=columns, index=pd.RangeIndex(len(values), name="seed")
        ),
        replicates=values[:, 1:],
        draw=hashlib.sha256(np.ascontiguousarray(weights)).hexdigest(),
        weights=weights,
        positives=_positives_of_columns(targets, masks, columns),
    )


def effective_positives(
    targets: Targets, groups: Bool[np.ndarray, "nodes groups"], *, macro: bool = True
) -> Float[np.ndarray, " groups"]:
    """How many equal positives the positives of a group are worth.

    In a macro score an example counts by `a_i = Σ 1 / n_j` over its positive nodes j of the group, each
    with `n_j` positives, in a micro score by their number. Kish's `(Σ a_i)² / Σ a_i²` is then the number
    of examples where all count alike, and less where a few have most of the weight. One
    example more or less that is found moves the group's recall by about one part in so many.

    Args:
        targets: 0/1, `[examples, nodes]`, dense or sparse.
        groups: bool, `[nodes, groups]`.
        macro: whether nodes count alike, or positives do.

    Returns:
        `[groups]`, from 1 to the number of examples; 0 for a group without positives.

    Source:
        L. Kish, Survey Sampling, 1965.

    """
    present = sparse.csr_array(targets, dtype=np.float64)
    support = np.asarray(present.sum(axis=0)).ravel()
    # What each node's positives count, 0 for a node without any.
    worth = (support > 0) / np.maximum(support, 1) if macro else np.ones_like(support)
    counts = present @ sparse.csr_array(groups * worth[:, None])
    total, squares = (np.asarray(c.sum(axis=0)).ravel() for c in (counts, counts.power(2)))
    return np.divide(total**2, squares, out=np.zeros_like(total), where=squares > 0)


def two_sided_p(
    difference: float | Float[np.ndarray, "*columns"],
    replicates: Float[np.ndarray, "replicates ..."],
) -> Float[np.ndarray, "*columns"]:
    """Bootstrap p-value of a difference against 0, in step with `interval`.

    For `level`, which shows what a bootstrap that knows examples alone, or draws few seeds anew, gets
    wrong. Formula: `2 (1 + min(#{d* ≤ 0}, #{d* ≥ 0})) / (R + 1)`, at most 1, over the R replicates `d*`
    that are numbers, moved so that their mean is the difference. It can never be below `2/(R + 1)`: 0.002 with 1,000 replicates.

    Args:
        difference: as measured, `[...]`.
        replicates: differences within replicates, `[replicates, ...]`.

    Returns:
        `[...]` in [2/(R + 1), 1]; NaN where there is no replicate.

    """
    centred = _centred(difference, replicates)
    known = np.count_nonzero(~np.isnan(centred), axis=0)
    fewer = np.minimum((centred <= 0).sum(axis=0), (centred >= 0).sum(axis=0))
    return np.where(known > 0, np.minimum(1.0, 2 * (1 + fewer) / (known + 1)), np.nan)


# --- scores under weights -----------------------------------------------------------------------


class _Bags(NamedTuple):
    """Lists of rows (examples or nodes), joined; `sums` adds up the rows of each list.

    Targets, predictions and groups are sparse, so adding up rows, which `embedding_bag` does at memory
    speed, is cheaper than a dense product with indicator columns.
    """

    rows: torch.Tensor
    starts: torch.Tensor

    @classmethod
    def of_pieces(cls, lists: Sequence[np.ndarray], starts: Sequence[np.ndarray]) -> "_Bags":
        """The pieces of longer lists, each given with where its pieces start."""
        before = np.cumsum([0, *map(len, lists[:-1])])
        joined = np.concatenate([b + of_list for b, of_list in zip(before, starts, strict=True)])
        return cls(torch.from_numpy(np.concatenate(lists)), torch.from_numpy(joined))

    @classmethod
    def of_columns(cls, indicator: np.ndarray) -> "_Bags":
        _, rows = np.nonzero(indicator.T)
        starts = np.cumsum([0, *indicator.sum(axis=0)[:-1]])
        return cls(torch.from_numpy(rows), torch.from_numpy(starts))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """[rows, replicates] -> [lists, replicates]; 0 for an empty list."""
        return embedding_bag(self.rows, torch.from_numpy(values), self.starts, mode="sum").numpy()


class _Ranking(NamedTuple):
    """The examples of one or more rankings in blocks: each block ends with a positive's score.

    A sum over all examples that score at least as high as a positive is then a running sum over
    blocks, and what scores below the last positive is never touched.
    """

    first_block: np.ndarray  # of each ranking
    hits: _Bags  # the positives of each block
    predicted: _Bags  # all examples of each block

    @classmethod
    def of(cls, rankings: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> "_Ranking":
        """From (scores, targets, example) of each ranking; each has a positive."""
        positives, first_positives, kept, first_kept = zip(*starmap(_blocks, rankings), strict=True)
        sizes = [0, *map(len, first_positives[:-1])]
        return cls(
            np.cumsum(sizes),
            _Bags.of_pieces(positives, first_positives),
            _Bags.of_pieces(kept, first_kept),
        )

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """[rankings, replicates]; 0 where a replicate has no positive."""
        hits, predicted = self.hits.sums(weights), self.predicted.sums(weights)
        result = np.empty((len(self.first_block), weights.shape[1]), np.float32)
        ends = [*self.first_block[1:], len(hits)]
        for row, (start, end) in enumerate(zip(self.first_block, ends, strict=True)):
            step, examples = hits[start:end], predicted[start:end].cumsum(axis=0)
            at_least = step.cumsum(axis=0)
            support = at_least[-1].copy()
            # Blocks without weight have no hits either: the quotient is 0, whatever the floor.
            at_least /= np.maximum(examples, 1e-30, out=examples)
            result[row] = np.einsum("br,br->r", step, at_least) / np.maximum(support, 1e-30)
        return result


def _blocks(
    scores: np.ndarray, targets: np.ndarray, example: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The positives of one ranking, best first, and where blocks start; the same of all examples."""
    positive = np.flatnonzero(targets)
    positive = positive[np.argsort(-scores[positive])]
    kept = np.flatnonzero(scores >= scores[positive[-1]])
    kept = kept[np.argsort(-scores[kept])]
    at = -scores[positive]
    cuts = np.flatnonzero(at[1:] > at[:-1]) + 1
    reach = np.searchsorted(-scores[kept], at[cuts - 1], side="right")
    return example[positive], np.append(0, cuts), example[kept], np.append(0, reach)


class _Scorer:
    """One seed's predictions, ready to be scored under any weights."""

    def __init__(
        self,
        scores: np.ndarray,
        targets: np.ndarray,
        threshold: np.ndarray,
        masks: Mapping[str, np.ndarray],
        ranking: bool,
        pooled_ranking: bool,
    ):
        examples = np.arange(len(scores))
        by_node, self.with_positives = np.ascontiguousarray(scores.T), targets.any(axis=0)
        self.support = targets.sum(axis=0)[self.with_positives, None].astype(np.float32)
        masked = np.stack(list(masks.values()), axis=1)
        self.groups = _Bags.of_columns(masked)
        self.groups_with_positives = _Bags.of_columns(masked[self.with_positives])
        self.macro_factor = np.ones((len(masks), 1), np.float32)
        self.macro_factor[list(masks).index("all")] = self.with_positives.mean()

        predicted = scores > threshold
        self.positives = _Bags.of_columns(targets)
        self.predicted = _Bags.of_columns(predicted)
        self.hits = _Bags.of_columns(predicted & targets)
        self.rankings = self.pooled = None
        if ranking:
            self.rankings = _Ranking.of(
                (by_node[node], targets[:, node], examples)
                for node in np.flatnonzero(self.with_positives)
            )
        if pooled_ranking:
            pairs = scores.ravel(), targets.ravel(), np.repeat(examples, scores.shape[1])
            self.pooled = _Ranking.of([pairs])

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """[columns, replicates], in the order of `_columns`."""
        tp = self.hits.sums(weights)
        fp, positives = self.predicted.sums(weights) - tp, self.positives.sums(weights)
        per_node = np.stack(precision_recall_f1(tp, fp, positives - tp))[:, self.with_positives]
        if self.rankings is not None:
            per_node = [self.rankings.average_precision(weights), *per_node]

        node_weight = positives[self.with_positives] / self.support
        total = self.groups_with_positives.sums(node_weight)
        total[total == 0] = np.nan
        macro = [
            self.groups_with_positives.sums(values * node_weight) * self.macro_factor / total
            for values in per_node
        ]
        micro = precision_recall_f1(*map(self.groups.sums, (tp, fp, positives - tp)))
        pooled = [] if self.pooled is None else [self.pooled.average_precision(weights)]
        return np.concatenate([*macro, *micro, *pooled])


def _thresholds(
    given: float | Sequence[float | np.ndarray], seeds: int, nodes: int
) -> list[np.ndarray]:
    """For each seed one threshold `[]` or one for each node `[nodes]`."""
    levels = [given] * seeds if np.isscalar(given) else given
    if len(levels) != seeds:
        raise ValueError(f"{len(levels)} thresholds are given, but there are {seeds} seeds")
    levels = [np.asarray(level, dtype=float) for level in levels]
    for seed, level in enumerate(levels):
        if level.shape not in ((), (nodes,)):
            raise ValueError(
                f"thresholds of seed {seed} have shape {level.shape}; expected one number or "
                f"one for each of the {nodes} nodes"
            )
    return levels


def _columns(
    masks: Mapping[str, np.ndarray], ranking: bool, pooled_ranking: bool
) -> list[tuple[str, str]]:
    macro = _MACRO if ranking else _MACRO[1:]
    columns = [(measure, nodes) for measure in (*macro, *_MICRO) for nodes in masks]
    return columns + [("micro_average_precision", "all")] * pooled_ranking


def _positives_of_columns(
    targets: Targets, masks: Mapping[str, np.ndarray], columns: pd.MultiIndex
) -> pd.Series:
    groups = np.stack(list(masks.values()), axis=1)
    worth = {
        kind: dict(
            zip(masks, effective_positives(targets, groups, macro=kind == "macro"), strict=True)
        )
        for kind in ("macro", "micro")
    }
    values = [worth[measure.split("_")[0]][nodes] for measure, nodes in columns]
    return pd.Series(values, index=columns)


def _groups(targets: np.ndarray, groups: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    given = {"all", "with_positives"} & set(groups)
    if given:
        raise ValueError(f"group {given.pop()!r} is always there: give yours another name")
    everything = np.ones(targets.shape[1], dtype=bool)
    return {"all": everything, "with_positives": targets.any(axis=0), **groups}


def _chunks(weights: np.ndarray) -> Iterator[np.ndarray]:
    """The weights [examples, a few replicates] at a time; the first replicate weighs all alike."""
    rows = np.concatenate([np.ones_like(weights[:1]), weights]).astype(np.float32)
    for start in range(0, len(rows), _CHUNK):
        yield np.ascontiguousarray(rows[start : start + _CHUNK].T)


def _centred(estimate: float | np.ndarray, replicates: np.ndarray) -> np.ndarray:
    known = np.maximum(np.count_nonzero(~np.isnan(replicates), axis=0), 1)
    centred = replicates - np.nansum(replicates, axis=0) / known + estimate
    # Without rounding, variants that never differ would differ by the last bits of their averages.
    return np.round(centred, 12)


def check_comparable(
    scores: Mapping[str, BootstrapScores], baseline: str, family: Sequence[tuple[str, str]]
) -> None:
    """Refuse scores that cannot be compared.

    Raises:
        ValueError: an unknown baseline or column, nothing beside the baseline, or scores from
            different draws.

    """
    if baseline not in scores:
        raise ValueError(f"unknown baseline {baseline!r}: none of {', '.join(scores)}")
    if len(scores) < 2:
        raise ValueError(f"only the baseline {baseline!r} was given: there is nothing to compare")
    for name, score in scores.items():
        if score.draw != scores[baseline].draw:
            raise ValueError(
                f"{name!r} and the baseline {baseline!r} were scored with different example "
                "weights: draw them once per data set and pass them to every variant"
            )
        for column in family:
            if tuple(column) not in score.estimates.columns:
                raise ValueError(f"{name!r} has no scores {tuple(column)}")
