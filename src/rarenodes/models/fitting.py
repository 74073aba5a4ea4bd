"""Fitting a model that is kept: training, thresholds, scores and the card."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from rarenodes.datasets.columns import PlainFeatures
from rarenodes.datasets.dataset import Dataset
from rarenodes.models.card import POOLED, model_card, scores_by_rarity
from rarenodes.models.files import library_range, library_version
from rarenodes.models.model import Model
from rarenodes.models.predictors import Networks, Predictor, Regressions, check_family
from rarenodes.models.selection import SCOPES
from rarenodes.scores.metrics import confusion_counts, macro, precision_recall_f1
from rarenodes.scores.run_tables import Predictions, node_table, score_run, tune_thresholds
from rarenodes.scores.stored import BlockedScores, StoredScores, in_blocks
from rarenodes.scores.unknown import SilencedScores, unknown_in
from rarenodes.settings import SettingsError
from rarenodes.training.linear import fit_linear
from rarenodes.training.loop import Budget, Streams, train_ensemble
from rarenodes.training.variants import VariantSettings, build_loss, resampled

# The scopes of thresholds as the tuning calls them.
_TUNED_PER = {"global": "dataset", "depth": "depth", "node": "node"}


def fit_model(
    dataset: Dataset,
    variant: VariantSettings,
    budget: Budget,
    streams: Streams,
    checkpoint: Path | None = None,
    counted_in: Sequence[str] = ("train",),
) -> Model:
    """Train one run of a variant, tune its thresholds, score it, and describe it.

    Args:
        dataset: as its source made it, so that it knows how features are made of new examples;
            without that, the model takes features as they are.
        variant: how to train.
        budget: how long, and on which parts.
        streams: the run's random streams, which also name data set and variant.
        checkpoint: folder for the state of an unfinished training.
        counted_in: parts of the split in which a node's examples are counted to call it rare.

    Raises:
        SettingsError: a family of variants of which no model can be kept, or an encoder that trains.
        TrainingError: training cannot go on.

    """
    if budget.encoder is not None:
        raise SettingsError(
            f"{streams.dataset} {streams.variant}: an encoder trains along, and models are kept of "
            "features alone: leave out training.encoder, or give the source a frozen encoder"
        )
    if dataset.transformation is None:
        dataset = replace(dataset, transformation=PlainFeatures(dataset.features.shape[1]))
    predictor = fit_predictor(dataset, variant, budget, streams, checkpoint)
    with ExitStack() as files:
        predictions = _predictions(dataset, budget, predictor, files)
        thresholds = _thresholds(dataset, predictions)
        scores = _scores(dataset, predictions, thresholds, counted_in)
    written_by = library_version()
    first, below = library_range(written_by)
    card = model_card(
        dataset,
        (streams.dataset, streams.variant),
        variant,
        budget,
        {"root": streams.root, "run": streams.seed},
        {"written_by": written_by, "from": first, "below": below},
        thresholds,
        scores,
    )
    return Model(
        hierarchy=dataset.hierarchy,
        transformation=dataset.transformation,
        predictor=predictor,
        titles=dataset.titles or dataset.hierarchy.nodes,
        evaluated=dataset.evaluated,
        thresholds=thresholds,
        card=card,
    )


def fit_predictor(
    dataset: Dataset,
    variant: VariantSettings,
    budget: Budget,
    streams: Streams,
    checkpoint: Path | None = None,
) -> Predictor:
    """Train one run of a variant: as the stage `train` does, bit by bit.

    Raises:
        SettingsError: a family of variants of which no model can be kept.

    """
    check_family(streams.variant, variant)
    examples = resampled(variant, dataset, budget.fit_on, streams.resampling())
    if variant.family == "linear":
        return Regressions(fit_linear(examples, variant.linear, budget.fit_on))
    loss = build_loss(variant, examples, budget.fit_on)
    trained = train_ensemble(examples, loss, budget, streams, checkpoint)
    return Networks(trained.ensemble, dataset.hierarchy, streams.root)


def _predictions(
    dataset: Dataset, budget: Budget, predictor: Predictor, files: ExitStack
) -> Predictions:
    """Of evaluated nodes, in files, so that memory does not grow with examples × nodes."""

    def predicted(part: str) -> BlockedScores:
        rows = dataset.split[part]
        file = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        stored, first = StoredScores(file, len(rows), int(dataset.evaluated.sum())), 0
        for batch in predictor.predictions(dataset.features[rows]):
            stored.write(first, batch[:, dataset.evaluated])
            first += len(batch)
        unknown = unknown_in(dataset, part)
        return stored if unknown is None else SilencedScores(stored, unknown)

    held_out = "valid" not in budget.fit_on and len(dataset.split["valid"]) > 0
    return Predictions(predicted("valid") if held_out else None, predicted("test"))


def _thresholds(
    dataset: Dataset, predictions: Predictions
) -> dict[str, Float[np.ndarray, " nodes"]]:
    """By scope, for all nodes, NaN for those that are not evaluated; none without validation data."""
    positives = dataset.counts("valid")[dataset.evaluated]
    if predictions.valid is None or not positives.any():
        return {}
    found = {}
    for scope in SCOPES:
        found[scope] = np.full(len(dataset.hierarchy), np.nan)
        found[scope][dataset.evaluated] = tune_thresholds(dataset, predictions, _TUNED_PER[scope])
    return found


def _scores(
    dataset: Dataset,
    predictions: Predictions,
    thresholds: Mapping[str, Float[np.ndarray, " nodes"]],
    counted_in: Sequence[str],
) -> dict[str, Any]:
    if not dataset.counts("test")[dataset.evaluated].any():
        return {"pooled": {}, "by_rarity": [], "macro_f1_by_threshold": {}}
    if not thresholds:
        predictions = Predictions(None, predictions.test)
    nodes, pooled = score_run(dataset, predictions, node_table(dataset, counted_in))
    return {
        "pooled": {name: pooled[name] for name in POOLED},
        "by_rarity": scores_by_rarity(nodes),
        "macro_f1_by_threshold": {
            scope: _macro_f1(dataset, predictions, values[dataset.evaluated])
            for scope, values in thresholds.items()
        },
    }


def _macro_f1(
    dataset: Dataset, predictions: Predictions, thresholds: Float[np.ndarray, " nodes"]
) -> float:
    targets = dataset.targets[dataset.split["test"]][:, dataset.evaluated]
    f1, first = [], 0
    for scores, labels in in_blocks(predictions.test, targets):
        some = thresholds[first : first + scores.shape[1]]
        first += len(some)
        f1.append(precision_recall_f1(*confusion_counts(scores, labels, some))[2])
    return macro(np.concatenate(f1), dataset.counts("test")[dataset.evaluated], "with_positives")
