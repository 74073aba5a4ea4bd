"""Fitting a model that is kept: training, thresholds, scores and the card."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from rarenodes.datasets.columns import PlainFeatures
from rarenodes.datasets.dataset import Dataset
from rarenodes.models.card import POOLED, model_card, scores_by_rarity
from rarenodes.models.files import library_range, library_version
from rarenodes.models.model import Model
from rarenodes.models.predictors import (
    Committee,
    HiddenLookup,
    Leaves,
    Lookup,
    Networks,
    Predictor,
    Regressions,
)
from rarenodes.models.run import Run
from rarenodes.models.selection import SCOPES
from rarenodes.scores.metrics import confusion_counts, macro, precision_recall_f1
from rarenodes.scores.run_tables import Predictions, node_table, score_run, tune_thresholds
from rarenodes.scores.stored import BlockedScores, StoredScores, in_blocks
from rarenodes.scores.unknown import silenced_in_blocks, unknown_in
from rarenodes.settings import SettingsError
from rarenodes.training.committee import (
    check_held_out,
    traces_in,
    weights_of_all_nodes,
    weights_on_validation,
)
from rarenodes.training.forest import fit_forest
from rarenodes.training.hidden_neighbours import fit_hidden_neighbours
from rarenodes.training.linear import fit_linear
from rarenodes.training.loop import train_ensemble
from rarenodes.training.neighbours import fit_neighbours
from rarenodes.training.variants import build_loss, resampled

# The scopes of thresholds as the tuning calls them.
_TUNED_PER = {"global": "dataset", "depth": "depth", "node": "node"}


def fit_model(dataset: Dataset, run: Run, counted_in: Sequence[str] = ("train",)) -> Model:
    """Train one run of a variant, tune its thresholds, score it, and describe it.

    Args:
        dataset: as its source made it, so that it knows how features are made of new examples;
            without that, the model takes features as they are.
        run: what to train, and how long; of a committee, each member.
        counted_in: parts of the split in which a node's examples are counted to call it rare.

    Raises:
        SettingsError: an encoder that trains, or a committee that would weigh its members on data
            that they are trained on.
        TrainingError: training cannot go on.

    """
    if any(trained.budget.encoder is not None for trained in run.trained):
        raise SettingsError(
            f"{run.streams.dataset} {run.name}: an encoder trains along, and models are kept of "
            "features alone: leave out training.encoder, or give the source a frozen encoder"
        )
    if dataset.transformation is None:
        dataset = replace(dataset, transformation=PlainFeatures(dataset.features.shape[1]))
    predictor = fit_predictor(dataset, run)
    with ExitStack() as files:
        predictions = _predictions(dataset, run, predictor, files)
        thresholds = _thresholds(dataset, predictions)
        scores = _scores(dataset, predictions, thresholds, counted_in)
    written_by = library_version()
    first, below = library_range(written_by)
    card = model_card(
        dataset,
        run,
        predictor,
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


def fit_predictor(dataset: Dataset, run: Run) -> Predictor:
    """Train one run of a variant, as the stages `train` and `combine` do, bit by bit.

    Args:
        dataset: features, targets and split.
        run: what to train, and how long.

    Raises:
        SettingsError: a committee that would weigh its members on data that they are trained on.
        TrainingError: training cannot go on.

    """
    return _FITS[run.variant.family](dataset, run)


def _learned_from(dataset: Dataset, run: Run) -> Dataset:
    return resampled(run.variant, dataset, run.budget.fit_on, run.streams.resampling())


def _networks(dataset: Dataset, run: Run) -> Predictor:
    examples, fit_on = _learned_from(dataset, run), run.budget.fit_on
    loss = build_loss(run.variant, examples, fit_on)
    trained = train_ensemble(examples, loss, run.budget, run.streams, run.checkpoint)
    networks = Networks(trained.ensemble, dataset.hierarchy, run.streams.root)
    if run.variant.hidden_neighbours is None:
        return networks
    stored = fit_hidden_neighbours(trained.ensemble, dataset, run.variant.hidden_neighbours, fit_on)
    return HiddenLookup(networks, stored.found)


def _regressions(dataset: Dataset, run: Run) -> Predictor:
    examples = _learned_from(dataset, run)
    return Regressions(fit_linear(examples, run.variant.linear, run.budget.fit_on))


def _lookup(dataset: Dataset, run: Run) -> Predictor:
    examples = _learned_from(dataset, run)
    return Lookup(fit_neighbours(examples, run.variant.neighbours, run.budget.fit_on))


def _leaves(dataset: Dataset, run: Run) -> Predictor:
    examples, seed = _learned_from(dataset, run), run.streams.forest()
    return Leaves(fit_forest(examples, run.variant.forest, run.budget.fit_on, seed))


def _committee(dataset: Dataset, run: Run) -> Predictor:
    settings, about = run.variant.committee, f"{run.streams.dataset} {run.name}"
    if not run.members:
        raise SettingsError(
            f"{about}: a committee's members are variants that a study or a catalogue defines, and "
            "none are here: use one of its members as the variant"
        )
    held_out = run.holds_out(dataset)
    check_held_out(about, settings, held_out)
    members = {member.name: fit_predictor(dataset, member) for member in run.members}
    families = [member.variant.family for member in run.members]
    traces = traces_in(dataset, families, settings.mean)
    here = dataset.evaluated
    # Equal weights need no more than the number of members.
    nothing = np.empty((0, int(here.sum())), dtype=np.float32)
    decided_on = [
        _on_validation(dataset, member) if held_out else nothing for member in members.values()
    ]
    weights = weights_on_validation(
        about, dataset, settings, decided_on, None if traces is None else traces[:, here]
    )
    weights = weights_of_all_nodes(weights, dataset)
    return Committee(members, weights, settings.mean, dataset.hierarchy, traces)


def _on_validation(dataset: Dataset, predictor: Predictor) -> np.ndarray:
    """Probabilities of evaluated nodes, all at once: what weights are decided on."""
    predicted = predictor.predictions(dataset.features[dataset.split["valid"]])
    return np.concatenate([batch[:, dataset.evaluated] for batch in predicted])


_FITS = {
    "network": _networks,
    "linear": _regressions,
    "neighbours": _lookup,
    "forest": _leaves,
    "committee": _committee,
}


def _predictions(dataset: Dataset, run: Run, predictor: Predictor, files: ExitStack) -> Predictions:
    """Of evaluated nodes, in files, so that memory does not grow with examples × nodes."""

    def predicted(part: str) -> BlockedScores:
        rows = dataset.split[part]
        file = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        stored, first = StoredScores(file, len(rows), int(dataset.evaluated.sum())), 0
        for batch in predictor.predictions(dataset.features[rows]):
            stored.write(first, batch[:, dataset.evaluated])
            first += len(batch)
        return silenced_in_blocks(stored, unknown_in(dataset, part))

    held_out = run.holds_out(dataset)
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
