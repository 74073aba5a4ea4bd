"""Committees: predictions of models that err differently, averaged, and what each adds."""

from collections.abc import Collection, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from scipy import sparse
from scipy.stats import rankdata

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.scores.metrics import RARITY_BINS, average_precision, rarity_bin
from rarenodes.scores.stored import BlockedScores, Targets, columns
from rarenodes.scores.unknown import silenced, unknown_in
from rarenodes.settings import Settings, SettingsError, unknown_name

Mean = Literal["geometric", "arithmetic"]
Weighting = Literal["equal", "rarity", "validation"]
Probabilities = Float[np.ndarray, "examples nodes"]
Weights = Float[np.ndarray, " members"] | Float[np.ndarray, "members nodes"]

TRACE, TRACE_OF_FREQUENCY = 1e-4, 0.02
# Families that say 0 of a node which they have not seen near by.
_CAN_BE_ZERO = ("forest", "neighbours")
SMALLEST = 1e-12  # of what a logarithm is taken of
ROUNDS = 20  # seats that are given to members
SHRINKAGE = 100  # validation positives of a bin at which its own weights count half
BLOCK = 2**22  # examples × nodes at once


class CommitteeSettings(Settings):
    """Whose predictions are combined, and how.

    Attributes:
        members: names of other variants, of any family, each once.
        mean: `geometric` or `arithmetic`, of the members' probabilities.
        weights: `equal`; decided on `validation` data, the same for all nodes; or decided there
            for each bin of `rarity`.

    """

    members: list[str] = Field(min_length=2)
    mean: Mean = "geometric"
    weights: Weighting = "validation"

    @model_validator(mode="after")
    def _each_member_once(self):
        twice = sorted({name for name in self.members if self.members.count(name) > 1})
        if twice:
            raise ValueError(f"members: each once, found {', '.join(map(repr, twice))} again")
        return self


def members_first(
    committees: Mapping[str, CommitteeSettings], known: Collection[str], where: str
) -> list[str]:
    """Names of committees in an order in which each comes after its members.

    Args:
        committees: by name.
        known: names of all variants, committees included.
        where: the file, for messages.

    Raises:
        SettingsError: a member that is no variant, or committees that are members of each other.

    """
    for name, settings in committees.items():
        for member in settings.members:
            if member not in known:
                raise unknown_name(
                    "variant", member, known, f"{where}: variants.{name}.committee.members"
                )
    among = {
        name: [member for member in settings.members if member in committees]
        for name, settings in committees.items()
    }
    try:
        return list(TopologicalSorter(among).static_order())
    except CycleError as error:
        cycle = " → ".join(map(repr, reversed(error.args[1])))
        raise SettingsError(
            f"{where}: variants: a committee cannot be its own member, found {cycle} "
            "(committee → member): remove one of them"
        ) from None


# --- combining ----------------------------------------------------------------------------------


def traces_of(
    frequency: Float[np.ndarray, " nodes"], can_be_zero: Sequence[bool]
) -> Float[np.ndarray, "members nodes"]:
    """What a geometric mean adds to each member's probabilities so that none vetoes the others.

    A forest or a lookup of neighbours says 0 where it has not seen a node near by; to a geometric
    mean that is final. Such members get `10⁻⁴` and 2 % of the node's frequency; the others nothing,
    whose small probabilities tell rare nodes apart. The trace of a parent is at least that of its
    child, so sums stay coherent.

    Args:
        frequency: share of the training examples of each node, `[nodes]`.
        can_be_zero: for each member.

    Returns:
        `[members, nodes]`.

    """
    return np.outer(can_be_zero, TRACE + TRACE_OF_FREQUENCY * np.asarray(frequency))


def traces_in(
    dataset: Dataset, families: Sequence[str], how: str
) -> Float[np.ndarray, "members nodes"] | None:
    """What `combine` is to add to members of these families; None where the mean needs none.

    Args:
        dataset: whose training examples give frequencies.
        families: of the members' variants.
        how: the mean.

    Returns:
        `[members, nodes]`, of all nodes of the hierarchy.

    """
    if how == "arithmetic":
        return None
    frequency = dataset.counts("train") / len(dataset.split["train"])
    return traces_of(frequency, [family in _CAN_BE_ZERO for family in families])


def combine(
    members: Sequence[Probabilities],
    weights: Weights,
    how: str,
    hierarchy: Hierarchy,
    evaluated: Bool[np.ndarray, " all_nodes"] | None = None,
    traces: Float[np.ndarray, "members nodes"] | None = None,
    unknown: sparse.csr_array | None = None,
) -> Probabilities:
    """The weighted mean of members' probabilities, coherent.

    Arithmetic: `Σ_m w_m p_m`; geometric: `Π_m (p_m + trace_m)^{w_m}`, at most 1. With the same
    weights for all nodes, means of coherent probabilities are coherent. With weights by node a
    child may come out above its parent, whose members count differently: the maximum over
    descendants, as everywhere in this package, then raises the parent, and no child loses evidence.

    Args:
        members: coherent probabilities in [0, 1], `[examples, nodes]` each.
        weights: `[members]` or `[members, nodes]`, not negative, of sum 1 over members.
        how: `geometric` or `arithmetic`.
        hierarchy: the nodes.
        evaluated: which of the hierarchy's nodes the columns are; all where not given.
        traces: added to probabilities in a geometric mean, `[members, nodes]`; from `traces_of`.
        unknown: `[examples, nodes]`, sparse 0/1: pairs that scores leave out, which are 0 in the
            outcome, see `rarenodes.scores.unknown`; None where there are none.

    Returns:
        `[examples, nodes]` in [0, 1], float32.

    Raises:
        ValueError: shapes that do not fit, weights that are negative or do not sum to 1, or an
            unknown mean.

    Source:
        Linear and logarithmic opinion pools: Genest and Zidek, *Combining probability
        distributions: a critique and an annotated bibliography*, 1986.

    """
    _check_mean(how)
    members = [np.asarray(member) for member in members]
    weights = _checked_weights(members, weights)
    evaluated = np.ones(len(hierarchy), dtype=bool) if evaluated is None else evaluated
    examples, nodes = members[0].shape
    if evaluated.shape != (len(hierarchy),) or evaluated.sum() != nodes:
        raise ValueError(
            f"members have {nodes} nodes, expected the {evaluated.sum()} evaluated of "
            f"{len(hierarchy)} in the hierarchy"
        )
    result = np.empty((examples, nodes), dtype=np.float32)
    batch = max(1, BLOCK // max(nodes, 1))
    for start in range(0, examples, batch):
        rows = slice(start, start + batch)
        mean = pooled_mean([member[rows] for member in members], weights, how, traces)
        result[rows] = _coherent(mean, hierarchy, evaluated)
    return silenced(result, unknown)


def pooled_mean(
    members: Sequence[Probabilities],
    weights: Weights,
    how: str,
    traces: Float[np.ndarray, "members nodes"] | None = None,
) -> Probabilities:
    """The weighted mean of `combine`, before it is made coherent; arguments as there."""
    terms = [_terms(member, how, _row(traces, i)) for i, member in enumerate(members)]
    pooled = _pooled(terms, weights)
    mean = np.exp(pooled) if how == "geometric" else pooled
    return np.clip(mean, 0, 1).astype(np.float32)


def _terms(member: Probabilities, how: str, trace: np.ndarray | float) -> np.ndarray:
    """What is averaged: probabilities, or their logarithms."""
    if how == "arithmetic":
        return member.astype(np.float64)
    return np.log(np.maximum(member.astype(np.float64) + trace, SMALLEST))


def _terms_of_zero(how: str) -> float:
    return 0.0 if how == "arithmetic" else float(np.log(SMALLEST))


def _pooled(terms: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    return sum(w * term for w, term in zip(weights, terms, strict=True) if np.any(w))


def _row(traces: np.ndarray | None, member: int) -> np.ndarray | float:
    return 0.0 if traces is None else traces[member]


def _coherent(
    probabilities: Probabilities, hierarchy: Hierarchy, evaluated: np.ndarray
) -> Probabilities:
    # A node that is not evaluated passes on what lies below it.
    whole = np.zeros((len(probabilities), len(hierarchy)), dtype=probabilities.dtype)
    whole[:, evaluated] = probabilities
    return hierarchy.max_over_descendants(torch.from_numpy(whole)).numpy()[:, evaluated]


def _check_mean(how: str) -> None:
    if how not in get_args(Mean):
        raise ValueError(f"unknown mean {how!r}: 'geometric' or 'arithmetic'")


def _checked_weights(members: Sequence[np.ndarray], weights: Weights) -> np.ndarray:
    shapes = {member.shape for member in members}
    if len(shapes) != 1:
        raise ValueError(f"members have shapes {sorted(shapes)}: expected one shape for all")
    weights = np.asarray(weights, dtype=np.float64)
    expected = ((len(members),), (len(members), members[0].shape[1]))
    if weights.shape not in expected:
        raise ValueError(
            f"weights have shape {weights.shape}, expected {expected[0]} or {expected[1]}"
        )
    if (weights < 0).any() or not np.allclose(weights.sum(axis=0), 1):
        raise ValueError("weights must not be negative and must sum to 1 over members")
    return weights


# --- weights ------------------------------------------------------------------------------------


def choose_weights(
    members: Sequence[Probabilities | BlockedScores],
    targets: Targets,
    weighting: str,
    how: str,
    train_positives: Int[np.ndarray, " nodes"],
    traces: Float[np.ndarray, "members nodes"] | None = None,
    unknown: sparse.csr_array | None = None,
) -> Weights:
    """How much each member counts, decided on validation data.

    Equal weights are hard to beat, and validation positives of rare nodes are few. So all members
    begin with one seat, and only what validation data make likely moves away from that: first
    members are dropped, one after the other, whoever's absence gains most; then seats are given
    one by one to whom they gain most, up to `ROUNDS` seats. A move must raise the mean average
    precision of the nodes with validation positives by more than one standard error of the gain,
    the nodes' gains being paired; nodes are nested and share examples, so that error is a rough
    guard, not a test. A weight is a share of the seats; a member without signal costs the others'
    ranking and loses its seat.

    The score is the one that models are tuned by and gives every node the same say; weights by log
    loss would be those of the common nodes. Selection that begins with the best member alone, as in
    the source, was tried and overfits: with 148 validation examples (enron) it ended with one
    member, and ranked test examples worse than equal weights did.

    By rarity: each bin's own selection, on its nodes alone, is averaged with that over all nodes,
    with weight `s / (s + SHRINKAGE)`, `s` being the bin's validation positives. A bin without any
    takes the weights of all.

    Args:
        members: validation probabilities, `[examples, nodes]` each, in memory or some nodes at a
            time; of models that were not fitted on these examples.
        targets: 0/1, `[examples, nodes]`, dense or sparse.
        weighting: `equal`, `validation` or `rarity`.
        how: the mean that the weights are for.
        train_positives: training examples of each node, `[nodes]`, for its bin.
        traces: as in `combine`.
        unknown: as in `combine`, of the validation examples.

    Returns:
        `[members]`, or `[members, nodes]` by rarity; of sum 1 over members.

    Raises:
        ValueError: no validation positive to decide by, shapes that differ, an unknown weighting
            or mean.

    Source:
        Caruana, Niculescu-Mizil, Crew and Ksikes, *Ensemble selection from libraries of models*,
        ICML 2004: greedy moves, with replacement, on the score itself; begun from all members and
        guarded here. Why equal weights are hard to beat: Claeskens et al., *The forecast
        combination puzzle: a simple theoretical explanation*, 2016.

    """
    _check_mean(how)
    if weighting not in get_args(Weighting):
        raise ValueError(f"unknown weights {weighting!r}: 'equal', 'rarity' or 'validation'")
    count = len(members)
    if weighting == "equal":
        return np.full(count, 1 / count)
    targets = np.asarray(targets.toarray() if sparse.issparse(targets) else targets).astype(bool)
    decides = targets.any(axis=0)
    if not decides.any():
        raise ValueError("no node has a validation positive: weights cannot be decided; use equal")
    traces = None if traces is None else traces[:, decides]
    unknown = None if unknown is None else unknown[:, decides]
    terms = [
        silenced(_terms(columns(m, decides), how, _row(traces, i)), unknown, _terms_of_zero(how))
        for i, m in enumerate(members)
    ]
    of_all = _selected(terms, targets[:, decides])
    if weighting == "validation":
        return of_all
    bins = np.asarray(rarity_bin(np.asarray(train_positives)))
    weights = np.repeat(of_all[:, None], len(bins), axis=1)
    for name in RARITY_BINS:
        here = bins[decides] == name
        if not here.any():
            continue
        own = _selected([term[:, here] for term in terms], targets[:, decides][:, here])
        positives = targets[:, bins == name].sum()
        share = positives / (positives + SHRINKAGE)
        weights[:, bins == name] = (share * own + (1 - share) * of_all)[:, None]
    return weights


def weights_on_validation(
    where: str,
    dataset: Dataset,
    settings: CommitteeSettings,
    members: Sequence[Probabilities | BlockedScores],
    traces: Float[np.ndarray, "members nodes"] | None,
) -> Weights:
    """What `choose_weights` decides on a data set's validation part.

    Args:
        where: the committee, for the message.
        dataset: with targets, and pairs that are unknown.
        settings: of the committee.
        members: validation probabilities of evaluated nodes, `[examples, nodes]` each; any others
            where weights are equal.
        traces: of evaluated nodes, from `traces_in`.

    Raises:
        SettingsError: nothing to decide by.

    """
    try:
        return choose_weights(
            members,
            dataset.targets[dataset.split["valid"]][:, dataset.evaluated],
            settings.weights,
            settings.mean,
            dataset.counts("train")[dataset.evaluated],
            traces,
            unknown_in(dataset, "valid"),
        )
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None


def check_held_out(where: str, settings: CommitteeSettings, held_out: bool) -> None:
    """Refuse weights that would be decided on what a member was trained on.

    Args:
        where: the committee, for the message.
        settings: of the committee.
        held_out: whether validation data are, from all members.

    Raises:
        SettingsError: they are not, and weights are decided on them.

    """
    if settings.weights != "equal" and not held_out:
        raise SettingsError(
            f"{where} decides weights on validation data, but a "
            "member is trained on them: leave `valid` out of fit_on, or set weights to equal"
        )


def weights_of_all_nodes(
    weights: Weights, dataset: Dataset
) -> Float[np.ndarray, " members"] | Float[np.ndarray, "members all_nodes"]:
    """Weights of evaluated nodes, and of the others, which no score decides.

    Args:
        weights: `[members]`, which are for all nodes; or `[members, evaluated nodes]`.
        dataset: says which nodes are evaluated.

    Returns:
        `[members]`, as they are; or `[members, all nodes]`: a node that is not evaluated has those of
        its bin of rarity, or the mean of all nodes' where no evaluated node is in that bin.

    """
    if weights.ndim == 1:
        return weights
    bins = np.asarray(rarity_bin(dataset.counts("train")))
    every = np.repeat(weights.mean(axis=1, keepdims=True), len(bins), axis=1)
    decided = bins[dataset.evaluated]
    for name in np.unique(decided):
        every[:, bins == name] = weights[:, decided == name][:, :1]
    every[:, dataset.evaluated] = weights
    return every


def _selected(terms: Sequence[np.ndarray], targets: np.ndarray) -> Float[np.ndarray, " members"]:
    """Weights by guarded moves from equal ones; every column of the targets has a positive."""

    def precision(seats: np.ndarray) -> np.ndarray:
        return average_precision(_pooled(terms, seats / seats.sum()), targets)

    def best_move(moves: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
        scores = [precision(move) for move in moves]
        sure = [(s - current).mean() - _standard_error(s - current) for s in scores]
        best = int(np.argmax(sure))
        return (moves[best], scores[best]) if sure[best] > 0 else None

    one = np.eye(len(terms), dtype=int)
    seats = np.ones(len(terms), dtype=int)
    current = precision(seats)
    while (seats > 0).sum() > 1:
        move = best_move([np.where(one[m], 0, seats) for m in np.flatnonzero(seats)])
        if move is None:
            break
        seats, current = move
    while seats.sum() < ROUNDS and (seats > 0).sum() > 1:
        move = best_move([seats + one[m] for m in np.flatnonzero(seats)])
        if move is None:
            break
        seats, current = move
    return seats / seats.sum()


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


# --- why it works -------------------------------------------------------------------------------


def pairwise_diversity(
    members: Mapping[str, Probabilities],
    targets: Targets,
    nodes: Bool[np.ndarray, " nodes"] | None = None,
) -> pd.DataFrame:
    """How differently each two members rank the examples of some nodes, such as the rare ones.

    Of a node with `s` positives each member finds those among its `s` best examples (whoever
    scores as high as the `s`-th is among them only if there is room for all that do, so that a
    member which tells nothing finds nothing).

    Args:
        members: probabilities `[examples, nodes]` by name.
        targets: 0/1, same shape.
        nodes: which nodes count, `[nodes]`; of these only the ones with positives do.

    Returns:
        A row for each pair: `first`, `second`; `nodes`; `rank_correlation`, the mean over nodes of
        Spearman's (0 where a member's scores are all equal); `precision_correlation`, of the
        members' average precisions over nodes; and the positives that are found by `both`, by
        `first_only`, by `second_only` and by `neither`.

    Raises:
        ValueError: shapes that differ.

    """
    targets = np.asarray(targets.toarray() if sparse.issparse(targets) else targets).astype(bool)
    chosen = targets.any(axis=0) & (True if nodes is None else np.asarray(nodes))
    targets = targets[:, chosen]
    scores = {name: np.asarray(member)[:, chosen] for name, member in members.items()}
    found = {name: _found(score, targets) for name, score in scores.items()}
    ranks = {name: _standard_ranks(score) for name, score in scores.items()}
    precision = {name: average_precision(score, targets) for name, score in scores.items()}
    rows = []
    for first, second in combinations(members, 2):
        a, b = found[first], found[second]
        rows.append(
            {
                "first": first,
                "second": second,
                "nodes": int(chosen.sum()),
                "rank_correlation": float((ranks[first] * ranks[second]).sum(axis=0).mean()),
                "precision_correlation": _correlation(precision[first], precision[second]),
                "both": int((a & b).sum()),
                "first_only": int((a & ~b).sum()),
                "second_only": int((b & ~a).sum()),
                "neither": int((targets & ~a & ~b).sum()),
            }
        )
    return pd.DataFrame(rows)


def weights_without(
    weights: Weights, member: int
) -> Float[np.ndarray, " others"] | Float[np.ndarray, "others nodes"]:
    """The weights of a committee's other members once one has left.

    They keep their proportions; where none of them had a weight, they count alike.

    Args:
        weights: as in `combine`, of at least two members.
        member: the place of the one that leaves.

    Returns:
        The same without its row; of sum 1 over members.

    """
    left = np.delete(weights, member, axis=0)
    total = left.sum(axis=0)
    return np.where(total > 0, left / np.where(total > 0, total, 1), 1 / len(left))


def _found(scores: Probabilities, targets: np.ndarray) -> np.ndarray:
    """Positives among a node's `s` best examples, `s` being its number of positives."""
    # An example's place, counted from the best, is the last among those that score alike.
    place = rankdata(-scores, method="max", axis=0)
    return targets & (place <= targets.sum(axis=0))


def _standard_ranks(scores: Probabilities) -> np.ndarray:
    """Ranks of mean 0 and length 1 over examples; 0 where all scores are equal."""
    ranks = rankdata(scores, axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.linalg.norm(ranks, axis=0)
    return ranks / np.where(length > 0, length, 1)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; NaN where either does not vary."""
    if len(first) < 2 or first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
