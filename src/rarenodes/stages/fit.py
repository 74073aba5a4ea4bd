"""The commands `fit` and `predict`, and the stage `model`: models that are kept, and predictions of them."""

import csv
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from rarenodes.datasets.dataset import Dataset
from rarenodes.folders import writing
from rarenodes.models.files import check_free
from rarenodes.models.fitting import fit_model
from rarenodes.models.inputs import read_inputs
from rarenodes.models.model import COLUMNS, Model
from rarenodes.models.run import Run
from rarenodes.settings import SettingsError
from rarenodes.stages.prepare import load_source
from rarenodes.study.params import Study
from rarenodes.training.checkpoints import discard
from rarenodes.training.committee import CommitteeSettings, members_first
from rarenodes.training.loop import Streams

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """What was predicted: so many nodes for so many examples.

    Attributes:
        nodes: predicted, rows of the table.
        examples: predicted for.
        without: examples for which nothing was predicted.
        at_top: predicted nodes that are roots, to which every example belongs.

    """

    nodes: int
    examples: int
    without: int
    at_top: int


def fit(study: Study, name: str, variant: str, folder: Path, seed: int = 0) -> Model:
    """Fit one run of a variant or committee on a data set of a study, and keep the model in a folder.

    The data set is loaded from its source, since what a new example's features are made with is not
    stored with a prepared one. The run is that of the same seed of the stages `train` and `combine`.

    Args:
        study: the study.
        name: of the data set.
        variant: of the study or its catalogue.
        folder: where the model goes; a model that is there is replaced.
        seed: number of the run.

    Raises:
        SettingsError: unknown names, or what `rarenodes.models.fitting.fit_model` refuses.
        OSError: the folder holds something else, or cannot be written.

    """
    _check_members(study, variant)
    training = study.training(name, variant)
    check_free(folder)
    if seed < 0:
        raise SettingsError(f"seed: expected 0 or more, found {seed}")
    torch.set_num_threads(training.threads)
    dataset = load_source(study, name)
    _compare_with_prepared(study, name, dataset)
    run = _run(study, dataset, name, variant, seed)
    model = fit_model(dataset, run, study.parameters.evaluation.rarity_counted_in)
    model.save(folder)
    for trained in run.trained:
        discard(trained.checkpoint, str(trained.streams))
    return model


def _check_members(study: Study, variant: str) -> None:
    """Refuse a committee of the catalogue that is its own member, which no study has named."""
    found: dict[str, CommitteeSettings] = {}
    names = [variant]
    while names:
        name = names.pop()
        settings = study.variant(name).committee
        if settings is not None and name not in found:
            found[name] = settings
            names += settings.members
    members_first(found, study.variants | study.catalogue, str(study.params_file))


def _run(study: Study, dataset: Dataset, name: str, variant: str, seed: int) -> Run:
    """A variant's run; of a committee, that of each member.

    Of the study's runs those that `combine` takes: of a member that has fewer, its last. Beyond
    them the run of that number, of what is trained by chance.
    """
    settings = study.variant(variant, name)
    members = [] if settings.committee is None else settings.committee.members
    in_study = seed < study.seeds(name, variant)

    def of_member(member: str) -> int:
        if in_study:
            return min(seed, study.seeds(name, member) - 1)
        return 0 if study.variant(member).deterministic else seed

    return Run(
        settings,
        study.training(name, variant),
        Streams(study.parameters.seed, name, variant, seed),
        study.checkpoint(dataset, name, variant, seed),
        tuple(_run(study, dataset, name, member, of_member(member)) for member in members),
    )


def keep_model(study: Study, name: str, variant: str, folder: Path, report: Path) -> Model:
    """Fit the first run of a variant, keep the model in `folder` and its card, to be read, in `report`."""
    model = fit(study, name, variant, folder)
    with writing(report):
        report.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "card.md", report / "card.md")
    return model


def _compare_with_prepared(study: Study, name: str, dataset: Dataset) -> None:
    """Say so where the study's results are of other data than the model will be."""
    if not (study.prepared(name) / "dataset.json").exists():
        return
    if Dataset.load(study.prepared(name)).checksum() != dataset.checksum():
        log.warning(
            "%s: the data changed since they were prepared: the model is fitted on the new ones, the "
            "study's results are of the old; run `dvc repro` to renew them",
            name,
        )


def predict(
    folder: Path, file: Path, output: Path | None, column: str | None = None, **rule: Any
) -> Written:
    """Write what a model predicts for the examples of a file as CSV.

    Args:
        folder: of the model.
        file: a CSV, Parquet or ARFF table, a `.txt` file of texts or a `.npy` file of a matrix.
        output: where the table goes; None: to the standard output.
        column: the column of texts, where it has another name than when the model was fitted.
        rule: `top`, `confidence`, `threshold` and `leaves`, as of `Model.predict`.

    Raises:
        OSError: a file is missing, or cannot be read or written.
        ValueError: the model is damaged, the file is not what it takes, or a rule that cannot be.

    """
    model = Model.load(folder)
    inputs = read_inputs(file, model.transformation, column)
    tables = model.predictions(inputs, **rule, progress=output is not None)
    first = next(tables)  # what is wrong with the rule shows before a file is written
    predictions, examples, at_top = 0, 0, 0
    with _opened(output) as target:
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(COLUMNS)
        for table in _and_then(first, tables):
            rounded = [f"{p:.6g}" for p in table["probability"]]
            columns = [table[name].tolist() for name in COLUMNS[:-1]]
            writer.writerows(zip(*columns, rounded, strict=True))
            predictions += len(table)
            examples += table["row"].nunique()
            at_top += int(table["node"].isin(model.hierarchy.roots).sum())
    return Written(predictions, len(inputs), len(inputs) - examples, at_top)


def _and_then(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """The file, whole or not at all; or the standard output."""
    if output is None:
        yield sys.stdout
        return
    partial = output.with_name(f"{output.name}.partial")
    try:
        with writing(output):
            with partial.open("w", encoding="utf-8", newline="") as target:
                yield target
            partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
