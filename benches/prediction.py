"""Predictions for many short texts by the command line, as a user gives it.

Diagnosis codes of the default study, about a thousand nodes. What is predicted does not matter here, so
networks are trained for an epoch alone. Every command runs in a process of its own on two cores, whose
times hold all: starting Python, reading the model and the texts, making features, writing the table.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import pandas as pd

from rarenodes.datasets.dataset import Dataset
from rarenodes.models.fitting import fit_model
from rarenodes.models.run import Run
from rarenodes.stages.prepare import load_source
from rarenodes.study.params import Study
from rarenodes.training.loop import Streams

REPOSITORY = Path(__file__).parents[1]
PARAMS = REPOSITORY / "params.yaml"
DATASET = "icd10cm_limited"
# A network and a linear model.
VARIANTS = ("conditional_unseen_constant", "linear_conditional")
# Memory that does not grow from the first to the second is bounded.
EXAMPLES = (10_000, 100_000)
CORES = 2
TOP = 5


def predictions(
    variants: Sequence[str] = VARIANTS, examples: Sequence[int] = EXAMPLES
) -> pd.DataFrame:
    """Seconds and peak memory, a row per variant and number of texts."""
    study = Study(PARAMS)
    dataset = load_source(study, DATASET)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for variant in variants:
            model = Path(folder, variant)
            _fit(study, dataset, variant, model)
            for number in examples:
                texts = Path(folder, "texts.txt")
                texts.write_text(
                    "".join(f"{text}\n" for text in islice(cycle(dataset.texts), number))
                )
                what = {"variant": variant, "nodes": len(dataset.hierarchy), "texts": number}
                rows.append(what | measure(model, texts, Path(folder, "predictions.csv")))
    return pd.DataFrame(rows)


def measure(model: Path, texts: Path, output: Path) -> dict[str, float]:
    """`seconds` on the clock, `processor_seconds` and `peak_bytes` of one `predict --top 5`.

    Raises:
        subprocess.CalledProcessError: the command failed.

    """
    command = [sys.executable, "-m", "rarenodes", "predict", str(model), str(texts)]
    command += ["--top", str(TOP), "--output", str(output)]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        preexec_fn=_on_two_cores,
    )  # fmt: skip
    # Not `process.wait()`, which does not say what this one process took.
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {
        "seconds": seconds,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": 1024 * used.ru_maxrss,
    }


def _fit(study: Study, dataset: Dataset, variant: str, folder: Path) -> None:
    budget = study.training(DATASET, variant).model_copy(update={"epochs": 1})
    streams = Streams(study.parameters.seed, DATASET, variant, 0)
    fit_model(dataset, Run(study.variant(variant), budget, streams)).save(folder)


def _on_two_cores() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
