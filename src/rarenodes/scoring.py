"""From a run's predictions to its score tables: a row per node, and a row of pooled scores."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from rarenodes import metrics
from rarenodes.datasets.dataset import Dataset

# Thresholds at which every run is scored: the paper's, and one tuned on validation data.
HALF = 0.5


@dataclass(frozen=True)
class Predictions:
    """Coherent probabilities of one run for the evaluated nodes.

    Attributes:
        valid: `[validation examples, evaluated nodes]`, or None where these were trained on.
        test: `[test examples, evaluated nodes]`.

    """

    valid: Float[np.ndarray, "valid nodes"] | None
    test: Float[np.ndarray, "test nodes"]


def node_table(dataset: Dataset, fit_on: list[str]) -> pd.DataFrame:
    """What is known of every evaluated node before any training.

    Columns: node, depth, train_positives (in the parts trained on), test_positives, rarity.
    """
    evaluated = dataset.evaluated
    train_positives = sum(dataset.counts(part) for part in fit_on)[evaluated]
    return pd.DataFrame(
        {
            "node": np.array(dataset.hierarchy.nodes)[evaluated],
            "depth": dataset.hierarchy.depth.numpy()[evaluated],
            "train_positives": train_positives,
            "test_positives": dataset.counts("test")[evaluated],
            "rarity": np.asarray(metrics.rarity_bin(train_positives), dtype=str),
        }
    )


def tune_threshold(dataset: Dataset, predictions: Predictions) -> float:
    """The threshold with the best macro F1 on validation data; NaN where there are none."""
    if predictions.valid is None:
        return float("nan")
    targets = dataset.targets[dataset.split["valid"]][:, dataset.evaluated]
    return metrics.tuned_threshold(predictions.valid, targets)


def score_run(
    dataset: Dataset, predictions: Predictions, nodes: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Score tables of one run on the test part.

    Args:
        dataset: gives the targets.
        predictions: of the run.
        nodes: from `node_table`.

    Returns:
        A table with a row per evaluated node: the columns of `nodes`, average_precision,
        brier_score, and true_positives, false_positives and false_negatives at one half (`_half`)
        and at the tuned threshold (`_tuned`, missing without validation data). And pooled scores
        by name.

    """
    targets = dataset.targets[dataset.split["test"]][:, dataset.evaluated]
    threshold = tune_threshold(dataset, predictions)
    table = nodes.copy()
    scores = metrics.score_nodes(predictions.test, targets, HALF)
    table[["average_precision", "brier_score"]] = scores[["average_precision", "brier_score"]]
    pooled = {
        "threshold_tuned": threshold,
        "micro_average_precision": metrics.micro_average_precision(predictions.test, targets),
    }
    for convention in ("all", "with_positives"):
        pooled[f"macro_average_precision_{convention}"] = metrics.macro(
            scores["average_precision"].to_numpy(), nodes["test_positives"].to_numpy(), convention
        )
    for name, at in (("half", HALF), ("tuned", threshold)):
        counts = _counts(predictions.test, targets, at)
        for count, values in counts.items():
            table[f"{count}_{name}"] = values
        pooled |= _pooled_at(counts, nodes["test_positives"].to_numpy(), name)
    return table, pooled


def _counts(probabilities, targets, threshold: float) -> dict[str, np.ndarray]:
    names = ("true_positives", "false_positives", "false_negatives")
    if np.isnan(threshold):
        return {name: np.full(targets.shape[1], np.nan) for name in names}
    counts = metrics.confusion_counts(probabilities, targets, threshold)
    return dict(zip(names, counts, strict=True))


def _pooled_at(
    counts: dict[str, np.ndarray], test_positives: np.ndarray, name: str
) -> dict[str, float]:
    """Macro precision, recall and F1 under both conventions; NaN where counts are missing."""
    scores = zip(
        ("precision", "recall", "f1"),
        metrics.precision_recall_f1(*counts.values()),
        strict=True,
    )
    missing = any(np.isnan(value).any() for value in counts.values())
    return {
        f"macro_{score}_{convention}_{name}": (
            float("nan") if missing else metrics.macro(values, test_positives, convention)
        )
        for score, values in scores
        for convention in ("all", "with_positives")
    }
