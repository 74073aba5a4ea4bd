"""The stage `train`: every seed of one variant on one data set, trained and scored."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from rarenodes.datasets.dataset import Dataset
from rarenodes.inference.influence import influences
from rarenodes.scores.computed import ComputedScores
from rarenodes.scores.metrics import RARITY_BINS, rarity_bin
from rarenodes.scores.run_tables import HALF, Predictions, in_tables, node_table, score_run
from rarenodes.scores.stored import BlockedScores, StoredScores
from rarenodes.scores.unknown import silenced, silenced_in_blocks, unknown_in
from rarenodes.settings import SettingsError
from rarenodes.side_by_side import processes, side_by_side
from rarenodes.study.params import Study, TrainingSettings
from rarenodes.study.results import Results, name_rows_and_columns
from rarenodes.training.checkpoints import discard
from rarenodes.training.encoders import network_inputs
from rarenodes.training.ensemble import Ensemble
from rarenodes.training.forest import fit_forest
from rarenodes.training.hidden_neighbours import HiddenNeighbours, fit_hidden_neighbours
from rarenodes.training.linear import fit_linear
from rarenodes.training.loop import (
    Streams,
    Trained,
    choose_device,
    first_encoder,
    prediction_dropout,
    train_ensemble,
)
from rarenodes.training.neighbours import fit_neighbours
from rarenodes.training.variants import build_loss, resampled

# Seconds of a run above which the runs after it are trained in processes of their own.
WORTH_A_PROCESS = 6.0
# What a trained model predicts for a part of the split: `[some examples, nodes]`, batch by batch.
Predict = Callable[[str], Iterable[Float[np.ndarray, "batch nodes"]]]


@dataclass(frozen=True)
class Fitted:
    """A trained model, as far as it is asked for predictions.

    Attributes:
        predict: probabilities of a part of the split, batch by batch.
        computed: the same, worked out some nodes at a time; None where that would cost more.

    """

    predict: Predict
    computed: Callable[[str], ComputedScores] | None = None


class ScoredRun(NamedTuple):
    """Scores of one run: a row per node, pooled ones, and `rarenodes.inference.influence.influences`.

    The influences are those of average precision and of recall at 0.5 and at tuned thresholds, by rarity
    bin.
    """

    nodes: pd.DataFrame
    pooled: dict[str, float]
    influences: Float[np.ndarray, "columns bins examples"]


def train(study: Study, name: str, variant: str, folder: Path) -> Results:
    """Train every seed of a variant on a prepared data set; store what it predicts in `folder`.

    An interrupted run goes on from its last checkpoint; `discard_checkpoints` when the results are
    safe. Runs of networks that take more than seconds are trained side by side, as many as the cores
    have room for. Probabilities that are not kept are scored at once, from files, so that memory does not
    grow with examples × nodes. Wall times go to `scratch/run_log.csv`, which is no result.
    """
    dataset = Dataset.load(study.prepared(name))
    settings, training = study.variant(variant), study.training(name, variant)
    torch.set_num_threads(training.threads)
    fit = _FITS[settings.family]
    kept: list[Predictions] = []
    scored, histories = [], []
    seconds: dict[int, float] = {}
    for seed in range(study.seeds(name, variant)):
        started = time.monotonic()
        fitted, history = fit(study, dataset, name, variant, seed, folder)
        seconds.setdefault(seed, time.monotonic() - started)
        _note_wall_time(study, name, variant, seed, seconds[seed])
        if seed == 0 and settings.family == "network" and seconds[0] > WORTH_A_PROCESS:
            seconds |= _train_ahead(study, name, variant)
        histories.append(history.assign(seed=seed))
        with ExitStack() as files:
            predictions = _predictions(dataset, training, fitted, files, study.folder / "scratch")
            if training.keep_probabilities:
                kept.append(predictions)
            else:
                scored.append(scored_run(study, dataset, variant, predictions))
    results = Results(
        history=pd.concat(histories, ignore_index=True),
        **(_stacked(kept) if kept else scores_of_runs(scored)),
    )
    results.save(folder)
    name_rows_and_columns(dataset, folder)
    return results


def _train_ahead(study: Study, name: str, variant: str) -> dict[int, float]:
    """Train the runs after the first side by side, up to their last checkpoints.

    Whoever goes on from these has nothing left to train. Returns the seconds that each run took.
    """
    training = study.training(name, variant)
    at_once = processes(training.threads) if choose_device(training.device) == "cpu" else 1
    seeds = range(1, study.seeds(name, variant))
    if min(at_once, len(seeds)) <= 1:
        return {}
    runs = [(study.params_file, name, variant, seed) for seed in seeds]
    about = f"{name} {variant}"
    return dict(zip(seeds, side_by_side(_train_to_checkpoint, runs, at_once, about), strict=True))


def _train_to_checkpoint(params_file: Path, name: str, variant: str, seed: int) -> float:
    """Train one run in a process of its own; the seconds it took."""
    started = time.monotonic()
    study = Study(params_file)
    torch.set_num_threads(study.training(name, variant).threads)
    dataset = Dataset.load(study.prepared(name))
    _trained_networks(study, dataset, name, study.trained_as(variant), seed)
    return time.monotonic() - started


def discard_checkpoints(study: Study, name: str, variant: str) -> None:
    """Remove the checkpoints of runs whose results are stored.

    Those of networks that further variants of the study have stay until these are done.
    """
    trained = study.trained_as(variant)
    waiting = [
        other
        for other in study.variants
        if other != variant
        and study.trained_as(other) == trained
        and not study.results(name, other).exists()
    ]
    if waiting:
        return
    dataset = Dataset.load(study.prepared(name))
    for seed in range(study.seeds(name, variant)):
        discard(study.checkpoint(dataset, name, variant, seed), f"{name} {variant} seed {seed}")


def predictions_again(
    study: Study, dataset: Dataset, name: str, variant: str, seed: int, files: ExitStack
) -> Predictions:
    """What a run predicted that kept its networks and no probabilities; other models are fitted anew.

    Args:
        study: in which it was trained.
        dataset: the prepared data set.
        name: of the data set.
        variant: any but a committee.
        seed: of the run.
        files: whose end is that of the predictions.

    Raises:
        SettingsError: it kept no networks.
        UnreadableFile: they are damaged.

    """
    settings, training = study.variant(variant), study.training(name, variant)
    torch.set_num_threads(training.threads)
    if settings.family == "network":
        folder = study.results(name, variant) / f"ensemble-{seed}"
        if not folder.exists():
            raise SettingsError(
                f"{name} {variant}: neither probabilities nor networks of seed {seed} were kept, and "
                "committees need one of them: set training.keep_ensembles to true"
            )
        streams = Streams(study.parameters.seed, name, variant, seed)
        ensemble = Ensemble.load(folder, first_encoder(dataset, training, streams))
        ensemble = ensemble.to(choose_device(training.device))
        fitted = _fitted_networks(study, dataset, name, variant, seed, ensemble)
    else:
        fitted, _ = _FITS[settings.family](study, dataset, name, variant, seed, study.folder)
    return _predictions(dataset, training, fitted, files, study.folder / "scratch")


def _train_networks(
    study: Study, dataset: Dataset, name: str, variant: str, seed: int, folder: Path
) -> tuple[Fitted, pd.DataFrame]:
    trained = _trained_networks(study, dataset, name, study.trained_as(variant), seed)
    if study.trained_as(variant) != variant:
        settings, fit_on = study.variant(variant), study.training(name, variant).fit_on
        trained.ensemble.output = build_loss(settings, dataset, fit_on).output
    if study.training(name, variant).keep_ensembles:
        trained.ensemble.save(folder / f"ensemble-{seed}")
    fitted = _fitted_networks(study, dataset, name, variant, seed, trained.ensemble)
    return fitted, trained.history


def _fitted_networks(
    study: Study, dataset: Dataset, name: str, variant: str, seed: int, ensemble: Ensemble
) -> Fitted:
    settings, training = study.variant(variant), study.training(name, variant)
    streams = Streams(study.parameters.seed, name, variant, seed)
    device = str(ensemble.weights[0].device)
    if settings.hidden_neighbours is not None:
        given = (settings.hidden_neighbours, training.fit_on, training.encoder)
        found = fit_hidden_neighbours(ensemble, dataset, *given)
        return Fitted(_by_neighbours(dataset, training, found))

    def predict(part: str) -> Iterator[np.ndarray]:
        features = network_inputs(dataset, training.encoder, dataset.split[part]).to(device)
        dropout = prediction_dropout(training, streams, part, device)
        for batch in ensemble.predictions(features, dataset.hierarchy, dropout=dropout):
            yield batch.cpu().numpy()

    def computed(part: str) -> ComputedScores:
        with torch.no_grad():
            hidden = ensemble.hidden(torch.from_numpy(dataset.features[dataset.split[part]]))
        rows, constant = ensemble.rows(), ensemble.output.constant
        return ComputedScores(hidden, rows, dataset.hierarchy, dataset.evaluated, constant)

    return Fitted(predict, computed if settings.sparse is not None else None)


def _by_neighbours(
    dataset: Dataset, training: TrainingSettings, found: HiddenNeighbours
) -> Predict:
    device = str(found.ensemble.weights[0].device)

    def predict(part: str) -> Iterator[np.ndarray]:
        inputs = network_inputs(dataset, training.encoder, dataset.split[part])
        return found.predictions(inputs.to(device))

    return predict


def _trained_networks(
    study: Study, dataset: Dataset, name: str, variant: str, seed: int
) -> Trained:
    settings, training = study.variant(variant), study.training(name, variant)
    streams = Streams(study.parameters.seed, name, variant, seed)
    examples = resampled(settings, dataset, training.fit_on, streams.resampling())
    return train_ensemble(
        examples,
        build_loss(settings, examples, training.fit_on),
        training,
        streams,
        study.checkpoint(dataset, name, variant, seed),
    )


def _fit_forest(
    study: Study, dataset: Dataset, name: str, variant: str, seed: int, folder: Path
) -> tuple[Fitted, pd.DataFrame]:
    settings, training = study.variant(variant, name), study.training(name, variant)
    streams = Streams(study.parameters.seed, name, variant, seed)
    examples = resampled(settings, dataset, training.fit_on, streams.resampling())
    forest = fit_forest(examples, settings.forest, training.fit_on, streams.forest())
    history = pd.DataFrame(columns=["epoch", "train_loss"])
    return Fitted(lambda part: [forest.predict(dataset.features[dataset.split[part]])]), history


def _fit_by_examples(
    study: Study, dataset: Dataset, name: str, variant: str, seed: int, folder: Path
) -> tuple[Fitted, pd.DataFrame]:
    settings, training = study.variant(variant, name), study.training(name, variant)
    streams = Streams(study.parameters.seed, name, variant, seed)
    examples = resampled(settings, dataset, training.fit_on, streams.resampling())
    history = pd.DataFrame(columns=["epoch", "train_loss"])
    if settings.family == "neighbours":
        found = fit_neighbours(examples, settings.neighbours, training.fit_on)
        return Fitted(
            lambda part: found.predictions(dataset.features[dataset.split[part]])
        ), history
    model = fit_linear(examples, settings.linear, training.fit_on)
    return Fitted(lambda part: [model.predict(dataset.features[dataset.split[part]])]), history


_FITS = {
    "network": _train_networks,
    "forest": _fit_forest,
    "neighbours": _fit_by_examples,
    "linear": _fit_by_examples,
}


def _predictions(
    dataset: Dataset, training: TrainingSettings, fitted: Fitted, files: ExitStack, scratch: Path
) -> Predictions:
    """Predictions for the evaluated nodes, on validation data only where these are held out.

    They are 0 where it is unknown what is true, see `rarenodes.scores.unknown`.
    """
    nodes = int(dataset.evaluated.sum())

    def predicted(part: str) -> np.ndarray | BlockedScores:
        unknown = unknown_in(dataset, part)
        if fitted.computed is not None and not training.keep_probabilities:
            return silenced_in_blocks(fitted.computed(part), unknown)
        batches = (batch[:, dataset.evaluated] for batch in fitted.predict(part))
        if training.keep_probabilities:
            return silenced(np.ascontiguousarray(np.concatenate(list(batches))), unknown)
        file = files.enter_context(tempfile.TemporaryFile(dir=scratch))  # noqa: SIM115
        stored, first = StoredScores(file, len(dataset.split[part]), nodes), 0
        for batch in batches:
            stored.write(first, batch)
            first += len(batch)
        return silenced_in_blocks(stored, unknown)

    held_out = "valid" not in training.fit_on and len(dataset.split["valid"]) > 0
    return Predictions(valid=predicted("valid") if held_out else None, test=predicted("test"))


def _stacked(runs: list[Predictions]) -> dict[str, np.ndarray | None]:
    valid = None if runs[0].valid is None else np.stack([run.valid for run in runs])
    return {"test": np.stack([run.test for run in runs]), "valid": valid}


def scored_run(study: Study, dataset: Dataset, variant: str, predictions: Predictions) -> ScoredRun:
    """Scores of a run whose predictions are not kept."""
    nodes = node_table(dataset, study.parameters.evaluation.rarity_counted_in)
    per, numbers = study.variant(variant).threshold, study.parameters.evaluation.precision_at
    table, pooled = score_run(dataset, predictions, nodes, per, numbers)
    targets = dataset.targets[dataset.split["test"]][:, dataset.evaluated]
    levels = [HALF, table["threshold_tuned"].to_numpy()]
    bins = rarity_bin(nodes["train_positives"].to_numpy()).codes
    moves = influences(predictions.test, targets, levels, bins, len(RARITY_BINS))
    return ScoredRun(table, pooled, moves.astype(np.float32))


def scores_of_runs(runs: Sequence[ScoredRun]) -> dict[str, pd.DataFrame | np.ndarray]:
    """What `Results` holds of runs whose predictions are not kept."""
    nodes, seeds = in_tables([(run.nodes, run.pooled) for run in runs])
    moves = np.stack([run.influences for run in runs])
    return {"nodes": nodes, "seeds": seeds, "influences": moves}


def _note_wall_time(study: Study, name: str, variant: str, seed: int, seconds: float) -> None:
    path = study.folder / "scratch" / "run_log.csv"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_text("dataset,variant,seed,training_seconds\n")
    with path.open("a") as lines:
        lines.write(f"{name},{variant},{seed},{seconds:.2f}\n")
