"""From a run's predictions to its score tables: a row per node, and a row of pooled scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Num
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.scores import metrics
from rarenodes.scores.best import best_nodes, precision_at
from rarenodes.scores.stored import BlockedScores, in_blocks
from rarenodes.scores.unknown import known_share

# Every run is scored at the paper's threshold and at thresholds tuned on validation data.
HALF = 0.5

COUNTS = ("true_positives", "false_positives", "false_negatives")

# Which nodes share a tuned threshold: all, those of one depth, or none.
ThresholdScope = Literal["dataset", "depth", "node"]


@dataclass(frozen=True)
class Predictions:
    """Coherent probabilities of one run for the evaluated nodes, in memory or some at a time.

    They are 0 where it is unknown what is true, see `rarenodes.scores.unknown`.

    Attributes:
        valid: `[validation examples, evaluated nodes]`, or None where these were trained on.
        test: `[test examples, evaluated nodes]`.

    """

    valid: Float[np.ndarray, "valid nodes"] | BlockedScores | None
    test: Float[np.ndarray, "test nodes"] | BlockedScores


def node_table(dataset: Dataset, counted_in: Sequence[str]) -> pd.DataFrame:
    """What is known of every evaluated node before any training.

    Which nodes are rare is a property of the data: a variant that trains on more parts is scored on
    the same nodes as one that trains on fewer.

    Args:
        dataset: gives targets and depths.
        counted_in: parts of the split in which `train_positives` are counted.

    Returns:
        Columns: node, depth, train_positives, test_positives, rarity.

    """
    evaluated = dataset.evaluated
    train_positives = sum(dataset.counts(part) for part in counted_in)[evaluated]
    return pd.DataFrame(
        {
            "node": np.array(dataset.hierarchy.nodes)[evaluated],
            "depth": dataset.hierarchy.depth.numpy()[evaluated],
            "train_positives": train_positives,
            "test_positives": dataset.counts("test")[evaluated],
            "rarity": np.asarray(metrics.rarity_bin(train_positives), dtype=str),
        }
    )


def tune_thresholds(
    dataset: Dataset, predictions: Predictions, per: ThresholdScope = "dataset"
) -> Float[np.ndarray, " nodes"]:
    """For each evaluated node the threshold that is best on validation data.

    Best is the macro F1 of the nodes that share a threshold, over those with validation positives.
    Depths and nodes without any take the threshold of the data set; of equally good thresholds
    they take the one nearest to it (`rarenodes.scores.metrics.tuned_thresholds` says why).

    Thresholds of single nodes are tuned on few positives where nodes are rare: whether they carry
    over to test data is for the scores to show.

    Args:
        dataset: gives targets and depths.
        predictions: of a run.
        per: the nodes that share a threshold.

    Returns:
        `[evaluated nodes]`; NaN where no validation data were held out.

    Raises:
        ValueError: an unknown scope, or no validation positive at all.

    """
    depth = dataset.hierarchy.depth.numpy()[dataset.evaluated]
    groups = {"dataset": np.zeros_like(depth), "depth": depth, "node": np.arange(len(depth))}
    if per not in groups:
        known = ", ".join(map(repr, get_args(ThresholdScope)))
        raise ValueError(f"thresholds per {per!r}: expected one of {known}")
    if predictions.valid is None:
        return np.full(len(depth), np.nan)
    targets = dataset.targets[dataset.split["valid"]][:, dataset.evaluated]
    if not targets.sum():
        raise ValueError("no node has a positive example: there is no F1 to tune a threshold by")
    return metrics.tuned_thresholds(
        metrics.f1_by_threshold(predictions.valid, targets), groups[per]
    )


def score_run(
    dataset: Dataset,
    predictions: Predictions,
    nodes: pd.DataFrame,
    per: ThresholdScope = "dataset",
    precisions_at: Sequence[int] = (),
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Score tables of one run on the test part.

    Args:
        dataset: gives the targets.
        predictions: of the run.
        nodes: from `node_table`.
        per: the nodes that share a tuned threshold.
        precisions_at: numbers k of likeliest nodes whose precision is pooled, too.

    Returns:
        A table with a row per evaluated node: the columns of `nodes`, average_precision,
        brier_score, threshold_tuned, and true_positives, false_positives and false_negatives at one
        half (`_half`) and at the node's tuned threshold (`_tuned`). And pooled scores by name;
        threshold_tuned among them is missing where nodes have thresholds of their own. Without
        validation data everything tuned is missing. `precision_at_k` is over all evaluated nodes,
        `leaf_precision_at_k` over the leaves among them, as `rarenodes.scores.best.precision_at`.

    """
    targets = dataset.targets[dataset.split["test"]][:, dataset.evaluated]
    thresholds = tune_thresholds(dataset, predictions, per)
    table = _score_nodes(predictions.test, targets, thresholds, nodes)
    if dataset.unknown is not None:
        # Unknown pairs have no error in it, but were counted.
        table["brier_score"] /= known_share(dataset, "test")
    pooled = {
        "threshold_tuned": float(thresholds[0]) if per == "dataset" else float("nan"),
        "micro_average_precision": metrics.micro_average_precision(predictions.test, targets),
    }
    test_positives = table["test_positives"].to_numpy()
    for convention in ("all", "with_positives"):
        pooled[f"macro_average_precision_{convention}"] = metrics.macro(
            table["average_precision"].to_numpy(), test_positives, convention
        )
    for at in ("half", "tuned"):
        counts = [table[f"{name}_{at}"].to_numpy() for name in COUNTS]
        pooled |= _pooled_at(counts, test_positives, at)
    if precisions_at:
        pooled |= _precisions(dataset, predictions.test, targets, precisions_at)
    return table, pooled


def _precisions(
    dataset: Dataset,
    scores: Float[np.ndarray, "test nodes"] | BlockedScores,
    targets: sparse.csr_array,
    numbers: Sequence[int],
) -> dict[str, float]:
    leaf = np.zeros(len(dataset.hierarchy), dtype=bool)
    leaf[dataset.hierarchy.indices(dataset.hierarchy.leaves)] = True
    found = {}
    for name, among in (("", np.ones(targets.shape[1], bool)), ("leaf_", leaf[dataset.evaluated])):
        best = best_nodes(scores, max(numbers), among)
        for number in numbers:
            precision = precision_at(best[:, :number], number, targets, among)
            found[f"{name}precision_at_{number}"] = precision
    return found


def in_tables(
    runs: Sequence[tuple[pd.DataFrame, dict[str, float]]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs of one variant, one after the other, as two tables with a column `seed`."""
    nodes = [table.assign(seed=seed) for seed, (table, _) in enumerate(runs)]
    seeds = [{"seed": seed, **pooled} for seed, (_, pooled) in enumerate(runs)]
    return pd.concat(nodes, ignore_index=True), pd.DataFrame(seeds)


def _score_nodes(
    probabilities: Float[np.ndarray, "test nodes"] | BlockedScores,
    targets: sparse.csr_array,
    thresholds: Float[np.ndarray, " nodes"],
    nodes: pd.DataFrame,
) -> pd.DataFrame:
    """The table of nodes with what every node's own column of probabilities says."""
    tables, first = [], 0
    for scores, labels in in_blocks(probabilities, targets):
        some = thresholds[first : first + scores.shape[1]]
        first += len(some)
        at_half = metrics.score_nodes(scores, labels, HALF)
        table = at_half[["average_precision", "brier_score"]].assign(threshold_tuned=some)
        table[[f"{name}_half" for name in COUNTS]] = at_half[list(COUNTS)]
        table[[f"{name}_tuned" for name in COUNTS]] = _counts(scores, labels, some)
        tables.append(table)
    found = pd.concat(tables, ignore_index=True).set_axis(nodes.index)
    return pd.concat([nodes, found], axis=1)


def _counts(
    scores: Float[np.ndarray, "test nodes"],
    targets: metrics.Targets,
    thresholds: Float[np.ndarray, " nodes"],
) -> Num[np.ndarray, "nodes 3"]:
    if np.isnan(thresholds).any():
        return np.full((len(thresholds), len(COUNTS)), np.nan)
    return np.stack(metrics.confusion_counts(scores, targets, thresholds), axis=1)


def _pooled_at(counts: list[np.ndarray], test_positives: np.ndarray, name: str) -> dict[str, float]:
    """Macro precision, recall and F1 under both conventions; NaN where counts are missing."""
    scores = zip(("precision", "recall", "f1"), metrics.precision_recall_f1(*counts), strict=True)
    missing = np.isnan(counts).any()
    return {
        f"macro_{score}_{convention}_{name}": (
            float("nan") if missing else metrics.macro(values, test_positives, convention)
        )
        for score, values in scores
        for convention in ("all", "with_positives")
    }
