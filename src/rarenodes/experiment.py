"""The stage `train`: every seed of one variant on one data set, trained and scored."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rarenodes.datasets.dataset import Dataset
from rarenodes.forest import fit_forest
from rarenodes.results import Results
from rarenodes.scoring import Predictions, node_table, score_run
from rarenodes.study import Study, TrainingSettings
from rarenodes.training import Streams, prediction_dropout, train_ensemble
from rarenodes.variants import build_loss, resampled


def train(study: Study, name: str, variant: str, folder: Path) -> Results:
    """Train and score every seed of a variant on a prepared data set; store results in `folder`.

    An interrupted run goes on from its last checkpoint; `discard_checkpoints` when the results are
    safe. Wall times go to `scratch/run_log.csv`, which is no result.
    """
    dataset = Dataset.load(study.prepared(name))
    settings, training = study.variant(variant), study.training(name, variant)
    torch.set_num_threads(training.threads)
    nodes = node_table(dataset, training.fit_on)
    run = _train_networks if settings.forest is None else _fit_forest
    tables, rows, histories, probabilities = [], [], [], []
    for seed in range(training.seeds):
        started = time.monotonic()
        predictions, history = run(study, dataset, name, variant, seed, folder)
        _note_wall_time(study, name, variant, seed, time.monotonic() - started)
        table, pooled = score_run(dataset, predictions, nodes, settings.threshold)
        tables.append(table.assign(seed=seed))
        rows.append({"seed": seed, **pooled})
        histories.append(history.assign(seed=seed))
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
) -> tuple[Predictions, pd.DataFrame]:
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

    def probabilities(part: str) -> np.ndarray:
        features = torch.from_numpy(dataset.features[dataset.split[part]]).to(device)
        dropout = prediction_dropout(training, streams, part, device)
        return trained.ensemble.predict(features, dataset.hierarchy, dropout=dropout).cpu().numpy()

    return _predictions(dataset, training, probabilities), trained.history


def _fit_forest(
    study: Study, dataset: Dataset, name: str, variant: str, seed: int, folder: Path
) -> tuple[Predictions, pd.DataFrame]:
    settings, training = study.variant(variant), study.training(name, variant)
    streams = Streams(study.parameters.seed, name, variant, seed)
    examples = resampled(settings, dataset, training.fit_on, streams.resampling())
    forest = fit_forest(examples, settings.forest, training.fit_on, streams.forest())
    predictions = _predictions(
        dataset, training, lambda part: forest.predict(dataset.features[dataset.split[part]])
    )
    return predictions, pd.DataFrame(columns=["epoch", "train_loss"])


def _predictions(
    dataset: Dataset, training: TrainingSettings, probabilities: Callable[[str], np.ndarray]
) -> Predictions:
    """Predictions for the evaluated nodes, on validation data only where these are held out."""
    held_out = "valid" not in training.fit_on and len(dataset.split["valid"]) > 0

    def evaluated(part: str) -> np.ndarray:
        return np.ascontiguousarray(probabilities(part)[:, dataset.evaluated])

    return Predictions(valid=evaluated("valid") if held_out else None, test=evaluated("test"))


def _note_wall_time(study: Study, name: str, variant: str, seed: int, seconds: float) -> None:
    path = study.folder / "scratch" / "run_log.csv"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_text("dataset,variant,seed,training_seconds\n")
    with path.open("a") as lines:
        lines.write(f"{name},{variant},{seed},{seconds:.2f}\n")
