"""The stage `train`: every seed of one variant on one data set, trained and scored."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from rarenodes.datasets.dataset import Dataset
from rarenodes.scores.run_tables import Predictions, node_table, score_run
from rarenodes.scores.stored import StoredScores
from rarenodes.study.params import Study, TrainingSettings
from rarenodes.study.results import Results
from rarenodes.training.forest import fit_forest
from rarenodes.training.loop import Streams, prediction_dropout, train_ensemble
from rarenodes.training.variants import build_loss, resampled

# What a trained model predicts for a part of the split: `[some examples, nodes]`, batch by batch.
Predict = Callable[[str], Iterable[Float[np.ndarray, "batch nodes"]]]


def train(study: Study, name: str, variant: str, folder: Path) -> Results:
    """Train and score every seed of a variant on a prepared data set; store results in `folder`.

    An interrupted run goes on from its last checkpoint; `discard_checkpoints` when the results are
    safe. Probabilities that are not kept are scored from files, so that memory does not grow with
    examples × nodes. Wall times go to `scratch/run_log.csv`, which is no result.
    """
    dataset = Dataset.load(study.prepared(name))
    settings, training = study.variant(variant), study.training(name, variant)
    torch.set_num_threads(training.threads)
    nodes = node_table(dataset, training.fit_on)
    fit = _train_networks if settings.forest is None else _fit_forest
    tables, rows, histories, probabilities = [], [], [], []
    for seed in range(training.seeds):
        started = time.monotonic()
        predict, history = fit(study, dataset, name, variant, seed, folder)
        _note_wall_time(study, name, variant, seed, time.monotonic() - started)
        with ExitStack() as files:
            predictions = _predictions(dataset, training, predict, files, study.folder / "scratch")
            table, pooled = score_run(dataset, predictions, nodes, settings.threshold)
        tables.append(table.assign(seed=seed))
        rows.append({"seed": seed, **pooled})
        histories.append(history.assign(seed=seed))
        if training.keep_probabilities:
            probabilities.append(predictions.test)
    results = Results(
        nodes=pd.concat(tables, ignore_index=True),
        seeds=pd.DataFrame(rows),
        history=pd.concat(histories, ignore_index=True),
        probabilities=np.stack(probabilities) if training.keep_probabilities else None,
    )
    results.save(folder)
    return results


def discard_checkpoints(study: Study, name: str, variant: str) -> None:
    """Remove the checkpoints of runs whose results are stored."""
    dataset = Dataset.load(study.prepared(name))
    for seed in range(study.training(name, variant).seeds):
        shutil.rmtree(study.checkpoint(dataset, name, variant, seed), ignore_errors=True)


def _train_networks(
    study: Study, dataset: Dataset, name: str, variant: str, seed: int, folder: Path
) -> tuple[Predict, pd.DataFrame]:
    settings, training = study.variant(variant), study.training(name, variant)
    streams = Streams(study.parameters.seed, name, variant, seed)
    examples = resampled(settings, dataset, training.fit_on, streams.resampling())
    trained = train_ensemble(
        examples,
        build_loss(settings, examples, training.fit_on),
        training,
        streams,
        study.checkpoint(dataset, name, variant, seed),
    )
    if training.keep_ensembles:
        trained.ensemble.save(folder / f"ensemble-{seed}")
    device = str(trained.ensemble.weights[0].device)

    def predict(part: str) -> Iterator[np.ndarray]:
        features = torch.from_numpy(dataset.features[dataset.split[part]]).to(device)
        dropout = prediction_dropout(training, streams, part, device)
        for batch in trained.ensemble.predictions(features, dataset.hierarchy, dropout=dropout):
            yield batch.cpu().numpy()

    return predict, trained.history


def _fit_forest(
    study: Study, dataset: Dataset, name: str, variant: str, seed: int, folder: Path
) -> tuple[Predict, pd.DataFrame]:
    settings, training = study.variant(variant), study.training(name, variant)
    streams = Streams(study.parameters.seed, name, variant, seed)
    examples = resampled(settings, dataset, training.fit_on, streams.resampling())
    forest = fit_forest(examples, settings.forest, training.fit_on, streams.forest())
    history = pd.DataFrame(columns=["epoch", "train_loss"])
    return lambda part: [forest.predict(dataset.features[dataset.split[part]])], history


def _predictions(
    dataset: Dataset, training: TrainingSettings, predict: Predict, files: ExitStack, scratch: Path
) -> Predictions:
    """Predictions for the evaluated nodes, on validation data only where these are held out."""
    nodes = int(dataset.evaluated.sum())

    def predicted(part: str) -> np.ndarray | StoredScores:
        batches = (batch[:, dataset.evaluated] for batch in predict(part))
        if training.keep_probabilities:
            return np.ascontiguousarray(np.concatenate(list(batches)))
        file = files.enter_context(tempfile.TemporaryFile(dir=scratch))  # noqa: SIM115
        stored, first = StoredScores(file, len(dataset.split[part]), nodes), 0
        for batch in batches:
            stored.write(first, batch)
            first += len(batch)
        return stored

    held_out = "valid" not in training.fit_on and len(dataset.split["valid"]) > 0
    return Predictions(valid=predicted("valid") if held_out else None, test=predicted("test"))


def _note_wall_time(study: Study, name: str, variant: str, seed: int, seconds: float) -> None:
    path = study.folder / "scratch" / "run_log.csv"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_text("dataset,variant,seed,training_seconds\n")
    with path.open("a") as lines:
        lines.write(f"{name},{variant},{seed},{seconds:.2f}\n")
