"""How far each test example moves a macro score, and the bootstrap that follows from it.

Scoring a thousand replicates of tens of thousands of nodes takes hours for every run. A score's
derivative by the weight of each example takes one look at every node, from which the score in a replicate
follows to first order:

    T(w) ≈ T(1) + Σ_e (w_e − 1) ∂T/∂w_e

That is the infinitesimal jackknife. `difference` uses the variances and covariances of replicates alone,
and both it and the bootstrap estimate these; the scores, and how nodes weigh in a replicate, are those of
`bootstrap`, so for the same draw of examples the two can be put side by side (a test does). How they err
where positives are few, in a simulation of 100 nodes with 1.5 expected positives among 1,500 examples, at
mean average precisions of .04, .53 and .93: the scores' standard deviation over 200 samples was .0123, .0387
and .0219; derivatives said .0153, .0376 and .0175, the bootstrap .0171, .0376 and .0170 (means over 60
samples). Of differences between two runs likewise: .0143, .0442, .0245; .0176, .0412, .0195; .0197, .0418,
.0195. So intervals of scores near 1 are short by either.

Derivatives add up over nodes. What is kept of a run is their sums over disjoint groups of nodes, such as
rarity bins, from which the scores of every union of groups follow.

Source: B. Efron, *The jackknife, the bootstrap and other resampling plans*, 1982, chapter 6 (infinitesimal
jackknife; its relation to the bootstrap).
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import sparse

from rarenodes.inference.bootstrap import BootstrapScores, effective_positives
from rarenodes.scores.metrics import checked, predicted
from rarenodes.scores.stored import BlockedScores, Targets, in_blocks

RANKING = "macro_average_precision"


def influences(
    scores: Float[np.ndarray, "examples nodes"] | BlockedScores,
    targets: Targets,
    thresholds: Sequence[float | Float[np.ndarray, " nodes"]],
    group: Int[np.ndarray, " nodes"],
    groups: int,
) -> Float[np.ndarray, "columns groups examples"]:
    """Derivatives of sums of node scores by the weight of every example, at even weights.

    Of a node with positives P and weights w the sum has `(1/|P|) Σ_{i∈P} w_i p_i(w)`: the node's score,
    weighing by its support. For average precision `p_i = H_i / D_i`, the weighted positives and examples
    that score at least as high as i; for recall `p_i` is 1 where i is predicted.

    Args:
        scores: evaluated nodes only, in memory or some at a time.
        targets: 0/1, `[examples, nodes]`, dense or sparse.
        thresholds: predicted is what lies above it; one number or `[nodes]`, for each recall.
        group: the group of every node, from 0.
        groups: how many there are.

    Returns:
        `[1 + thresholds, groups, examples]`, float64: of average precision, then of recall at each of
        the thresholds.

    Raises:
        ValueError: shapes that differ, scores that are not numbers.

    """
    columns, examples = 1 + len(thresholds), targets.shape[0]
    levels = [np.broadcast_to(np.asarray(level), targets.shape[1]) for level in thresholds]
    moves, first = np.zeros((columns, groups, examples)), 0
    for some, labels in in_blocks(scores, targets):
        block, positive = checked(some, labels)
        of_block = slice(first, first + block.shape[1])
        first = of_block.stop
        with_positives = np.flatnonzero(positive.any(axis=0))
        by_node = np.ascontiguousarray(block[:, with_positives].T)
        for node, own in zip(with_positives, by_node, strict=True):
            rows, moved = _of_ranking(own, np.flatnonzero(positive[:, node]))
            moves[0, group[of_block][node], rows] += moved
        for column, level in enumerate(levels, start=1):
            hits = sparse.coo_array(positive & predicted(block, level[of_block]))
            share = 1 / np.maximum(positive.sum(axis=0), 1)
            np.add.at(moves[column], (group[of_block][hits.col], hits.row), share[hits.col])
    return moves


def _of_ranking(
    scores: Float[np.ndarray, " examples"], positive: Int[np.ndarray, " positives"]
) -> tuple[Int[np.ndarray, " moving"], Float[np.ndarray, " moving"]]:
    """Which examples move a node's average precision times its support, and how far.

    With `w_i` one: example e adds 1 to `D_i` of every positive i that it scores as high as, which costs
    `H_i / D_i²`; a positive also adds 1 to `H_i`, which gains `1 / D_i`, and counts itself by `H_e / D_e`.
    """
    lowest_first = np.sort(scores[positive])
    moving = np.flatnonzero(scores >= lowest_first[0])
    # How many positives every example scores at least as high as.
    reached = np.searchsorted(lowest_first, scores[moving], side="right")
    own = np.searchsorted(lowest_first, lowest_first, side="right")
    at_least = np.bincount(reached, minlength=len(positive) + 1)[::-1].cumsum()[::-1][own]
    hits = len(positive) - np.searchsorted(lowest_first, lowest_first, side="left")
    lost = np.append(0, np.cumsum(hits / at_least**2))
    gained = np.append(0, np.cumsum(1 / at_least))
    moved = -lost[reached]
    places = np.searchsorted(moving, positive)
    of_positive = reached[places]
    moved[places] += gained[of_positive] + (hits / at_least)[of_positive - 1]
    return moving, moved / len(positive)


def linear_scores(
    estimates: Sequence[Float[np.ndarray, " groups"]],
    moves: Sequence[Float[np.ndarray, "groups examples"]],
    measure: str,
    targets: sparse.csr_array,
    group: Int[np.ndarray, " nodes"],
    unions: Mapping[str, Bool[np.ndarray, " groups"]],
    weights: Float[np.ndarray, "replicates examples"],
) -> BootstrapScores:
    """One macro score of unions of groups: as measured, and in every replicate to first order.

    Args:
        estimates: for each seed the sum over each group's nodes with positives of their scores.
        moves: for each seed one column of `influences`.
        measure: what to call the score.
        targets: 0/1, `[examples, nodes]`.
        group: the group of every node, from 0.
        unions: by name, which groups are in it; those without positives are left out.
        weights: `[replicates, examples]` from `bootstrap.example_weights`.

    Returns:
        With columns (measure, union): means over the union's nodes with positives, in a replicate each
        node weighing by its resampled support over its own.

    """
    present = sparse.csc_array(targets, dtype=np.float64)
    support = np.asarray(present.sum(axis=0)).ravel()
    worth = (support > 0) / np.maximum(support, 1)
    member = sparse.csr_array(
        (worth, (np.arange(len(group)), group)), shape=(len(group), len(moves[0]))
    )
    # By how much an example adds to the number of a group's nodes, each weighing by its support.
    counted = (present @ member).toarray().T
    nodes = np.bincount(group[support > 0], minlength=len(moves[0]))
    names = [name for name, of_union in unions.items() if nodes[of_union].sum()]
    drawn = weights - 1
    found, replicates = [], []
    for sums, moved in zip(estimates, moves, strict=True):
        values, changes = [], []
        for name in names:
            chosen = unions[name]
            number = nodes[chosen].sum()
            value = sums[chosen].sum() / number
            change = moved[chosen].sum(axis=0) - value * counted[chosen].sum(axis=0)
            values.append(value)
            changes.append(change / number)
        found.append(values)
        replicates.append(np.array(values) + drawn @ np.stack(changes, axis=1).astype(drawn.dtype))
    columns = pd.MultiIndex.from_tuples(
        [(measure, name) for name in names], names=["measure", "nodes"]
    )
    masks = np.stack([unions[name][group] for name in names], axis=1)
    return BootstrapScores(
        estimates=pd.DataFrame(
            found, columns=columns, index=pd.RangeIndex(len(found), name="seed")
        ),
        replicates=np.stack(replicates).astype(np.float64),
        draw=hashlib.sha256(np.ascontiguousarray(weights)).hexdigest(),
        weights=weights,
        positives=pd.Series(effective_positives(targets, masks), index=columns),
    )
