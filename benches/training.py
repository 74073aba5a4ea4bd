"""Whole trainings: a yeast benchmark to its published score, and all of ICD-10-CM, dense and sparse.

Each runs in a process of its own on two threads, so that its peak memory is all that it takes.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from benches.timing import REPOSITORY, in_process, resident, seconds_of
from rarenodes.datasets.dataset import Dataset
from rarenodes.stages.prepare import prepare
from rarenodes.stages.train import train as train_stage
from rarenodes.study.params import Study
from rarenodes.study.results import Results
from rarenodes.training.loop import Streams
from rarenodes.training.sparse_run import SparseRun
from rarenodes.training.variants import build_loss

SCALE = REPOSITORY / "studies" / "scale" / "params.yaml"
# A variant of that study, and epochs beyond those after which validation data say that it is best.
SPARSE, SPARSE_EPOCHS = "conditional_sparse", 12
MCM = {"mcm": {"about": "C-HMCNN's max-constraint loss, unweighted"}}

# The paper's network and number of epochs. Batch size and learning rate chosen on the validation part,
# with training on the training part alone: AU(PRC) .2285, mean of five seeds; .2282 with batches of 128,
# rate 1e-3, 80 epochs; .2270 with 256, 2e-3, 80.
CELLCYCLE = {
    "seed": 2602,
    "datasets": {"cellcycle_FUN": {"about": "yeast genes", "source": "cellcycle_FUN"}},
    "variants": MCM,
    "training": {
        "seeds": 3,
        "members": 1,
        "epochs": 106,
        "batch_size": 64,
        "learning_rate": 0.0005,
        "hidden": 500,
        "layers": 2,
        "dropout": 0.7,
        "fit_on": ["train", "valid"],
        "device": "cpu",
        "threads": 2,
        "keep_probabilities": False,
    },
    "evaluation": {"baseline": "mcm"},
}


def cellcycle() -> pd.DataFrame:
    """Seconds of training and test AU(PRC), a row per seed; no rows without the benchmark data."""
    if "HMC_DATA_DIR" not in os.environ:
        return pd.DataFrame()
    return _in_process(CELLCYCLE)


def of_scale(variant: str, **training: Any) -> dict[str, Any]:
    """A study of one variant of that of ICD-10-CM, with the budget it has there, on two threads.

    Args:
        variant: its name.
        training: settings that differ.

    """
    study = Study(SCALE)
    [name] = study.parameters.datasets
    budget = study.training(name, variant).model_dump(exclude_none=True)
    return {
        "seed": study.parameters.seed,
        "datasets": yaml.safe_load(SCALE.read_text())["datasets"],
        "variants": {
            variant: study.variant(variant).model_dump(exclude={"training"}, exclude_unset=True)
        },
        "training": budget | {"seeds": 1, "members": 1, "threads": 2} | training,
        "evaluation": {"baseline": variant},
    }


def icd10cm() -> pd.DataFrame:
    """Seconds an epoch, scores aside, and peak memory, scores included; by number of members."""
    tables = []
    for members in (1, 5):
        values = of_scale("mcm", epochs=1, members=members, keep_ensembles=False)
        table = _in_process(values)
        tables.append(table.assign(members=members, batch=values["training"]["batch_size"]))
    return pd.concat(tables, ignore_index=True)


def icd10cm_sparse(epochs: int = SPARSE_EPOCHS) -> pd.DataFrame:
    """A row per epoch of sparse conditional training, one member, on data that were prepared before."""
    with tempfile.TemporaryDirectory() as folder:
        values = of_scale(SPARSE)
        Path(folder, "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        of_study = [sys.executable, "-m", "rarenodes", "--params", f"{folder}/params.yaml"]
        [name] = values["datasets"]
        subprocess.run([*of_study, "prepare", name], check=True, stdout=subprocess.DEVNULL)
        return pd.DataFrame(in_process("benches.training", folder, str(epochs)))


def _in_process(values: dict[str, Any]) -> pd.DataFrame:
    """A row per seed: `seconds` of training, `au_prc` on the test part, `peak_bytes`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        return pd.DataFrame(in_process("benches.training", folder))


def _train(folder: Path) -> pd.DataFrame:
    study = Study(folder / "params.yaml")
    [name] = study.parameters.datasets
    prepare(study, name, study.prepared(name))
    train_stage(study, name, "mcm", study.results(name, "mcm"))
    times = pd.read_csv(folder / "scratch" / "run_log.csv")
    seeds = Results.load(study.results(name, "mcm")).seeds
    return pd.DataFrame(
        {
            "seed": seeds["seed"],
            "seconds": times["training_seconds"],
            "au_prc": seeds["micro_average_precision"],
            "peak_bytes": resident("VmHWM"),
        }
    )


def _train_sparsely(folder: Path, epochs: int) -> pd.DataFrame:
    """Seconds of each epoch and of its validation, what that says, and memory at its highest so far."""
    study = Study(folder / "params.yaml")
    [name] = study.parameters.datasets
    budget = study.training(name, SPARSE)
    torch.set_num_threads(budget.threads)
    dataset = Dataset.load(study.prepared(name))
    loss = build_loss(study.variant(SPARSE), dataset, budget.fit_on)
    streams = Streams(study.parameters.seed, name, SPARSE, 0)
    run = SparseRun.start(dataset, loss, budget.model_copy(update={"epochs": epochs}), streams)
    rows = []
    for epoch in range(epochs):
        order = streams.order(dataset.split["train"], epoch)
        seconds = seconds_of(lambda epoch=epoch, order=order: run.train_epoch(epoch, order))
        found: dict[str, float] = {}
        validating = seconds_of(lambda found=found: found.update(run.validate()))
        rows.append(
            {
                "epoch": epoch + 1,
                "hidden": budget.hidden,
                "seconds": seconds,
                "validation_seconds": validating,
                **found,
                "peak_bytes": resident("VmHWM"),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    _folder, *_epochs = sys.argv[1:]
    _table = (
        _train_sparsely(Path(_folder), *map(int, _epochs)) if _epochs else _train(Path(_folder))
    )
    print(_table.to_json(orient="records"))
