"""The stage `train`: every seed of one variant on one data set, trained and scored."""

import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rarenodes.datasets.dataset import Dataset
from rarenodes.ensemble import Ensemble
from rarenodes.results import Results
from rarenodes.scoring import Predictions, node_table, score_run
from rarenodes.study import Study, TrainingSettings
from rarenodes.training import Streams, train_ensemble
from rarenodes.variants import build_loss


def train(study: Study, name: str, variant: str, folder: Path) -> Results:
    """Train and score every seed of a variant on a prepared data set; store results in `folder`.

    An interrupted run goes on from its last checkpoint; `discard_checkpoints` when the results are
    safe. Wall times go to `scratch/run_log.csv`, which is no result.
    """
    dataset = Dataset.load(study.prepared(name))
    training = study.training(name, variant)
    torch.set_num_threads(training.threads)
    nodes = node_table(dataset, training.fit_on)
    tables, rows, histories, probabilities = [], [], [], []
    for seed in range(training.seeds):
        started = time.monotonic()
        trained = train_ensemble(
            dataset,
            build_loss(study.variant(variant), dataset, training.fit_on),
            training,
            Streams(study.parameters.seed, name, variant, seed),
            study.checkpoint(dataset, name, variant, seed),
        )
        _note_wall_time(study, name, variant, seed, time.monotonic() - started)
        predictions = _predict(trained.ensemble, dataset, training)
        table, pooled = score_run(dataset, predictions, nodes)
        tables.append(table.assign(seed=seed))
        rows.append({"seed": seed, **pooled})
        histories.append(trained.history.assign(seed=seed))
        probabilities.append(predictions.test)
        if training.keep_ensembles:
            trained.ensemble.save(folder / f"ensemble-{seed}")
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


def _predict(ensemble: Ensemble, dataset: Dataset, training: TrainingSettings) -> Predictions:
    device = ensemble.weights[0].device

    def probabilities(part: str) -> np.ndarray:
        features = torch.from_numpy(dataset.features[dataset.split[part]]).to(device)
        predicted = ensemble.predict(features, dataset.hierarchy).cpu().numpy()
        return np.ascontiguousarray(predicted[:, dataset.evaluated])

    held_out = "valid" not in training.fit_on and len(dataset.split["valid"]) > 0
    return Predictions(
        valid=probabilities("valid") if held_out else None, test=probabilities("test")
    )


def _note_wall_time(study: Study, name: str, variant: str, seed: int, seconds: float) -> None:
    path = study.folder / "scratch" / "run_log.csv"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_text("dataset,variant,seed,training_seconds\n")
    with path.open("a") as lines:
        lines.write(f"{name},{variant},{seed},{seconds:.2f}\n")
