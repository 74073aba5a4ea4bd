"""The field's tabular benchmarks: yeast functional genomics, diatoms, Enron, ImCLEF."""

import json
from collections.abc import Mapping
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rarenodes.datasets.arff import ClusArff
from rarenodes.datasets.clus import joined, read_parts, rows_of
from rarenodes.datasets.columns import (
    ColumnTransformation,
    column_means,
    filled,
    one_hot,
)
from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.raw_files import RawFile, find, refuse_unverifiable, sha256
from rarenodes.datasets.sampling import Sampling
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.settings import Settings

# Every gene has a function, a process and a component: these three say nothing.
ONTOLOGY_ROOTS = ("GO0003674", "GO0005575", "GO0008150")


class BenchmarkOptions(Settings):
    """A benchmark whose files give all three parts of the split.

    Attributes:
        imputation: what a missing value becomes: `train`, the column's mean over train + valid in
            all parts; or `released`, as in the paper's code, where the test part takes its own
            means. That lets predictions for one test example depend on the others.

    """

    imputation: Literal["train", "released"] = "train"


class PairOptions(BenchmarkOptions):
    """A benchmark that comes as train and test only.

    Attributes:
        valid_fraction: share of the training file held out at random as `valid`. The protocol
            trains on train + valid, so it loses nothing.

    """

    valid_fraction: float = Field(0.15, gt=0, lt=1)


class UnverifiedOptions(BenchmarkOptions):
    """A benchmark of which some files' checksums are not known.

    Attributes:
        accept_unverified: whether to use these files all the same; their checksums are recorded in
            the card. Files of known checksum are verified in any case.

    """

    accept_unverified: bool = False


def names() -> tuple[str, ...]:
    """Names of the benchmarks."""
    return tuple(_registry()["sources"])


def options_of(name: str) -> type[BenchmarkOptions]:
    """The options of one benchmark."""
    files = raw_files(name)
    if "valid" not in files:
        return PairOptions
    if not all(file.verifiable for file in files.values()):
        return UnverifiedOptions
    return BenchmarkOptions


def load(source: str, root: Path, options: BenchmarkOptions, sampling: Sampling) -> Dataset:
    """A benchmark, prepared as the protocol of C-HMCNN says.

    Categories become 0/1 columns. Missing values take the column's mean, and columns are
    standardised; both over train + valid, in all three parts (`imputation` can change the first).
    Not evaluated are the root and, in GO, the roots of the three ontologies.

    Args:
        source: name of the benchmark.
        root: data folder; see `raw_files.find` for where files are looked for.
        options: see `options_of`.
        sampling: draws `valid` where the files do not give it, and limits `train`.

    Raises:
        FileNotFoundError: a file is nowhere to be found.
        ChecksumError: a file is not the known one.
        ArffError: a file cannot be read, or the parts do not agree.

    """
    wanted, accept = raw_files(source), getattr(options, "accept_unverified", False)
    for file in wanted.values():
        refuse_unverifiable(file, root, accept)
    paths = {part: find(file, root, accept) for part, file in wanted.items()}
    parts = read_parts(paths)
    split = sampling.limit(_split(parts, options, sampling))
    card = {
        **_origin(paths),
        "options": options.model_dump(),
        "seed": sampling.seed,
        "train_fraction": sampling.train_fraction,
    }
    hierarchy = Hierarchy(parts["train"].edges)
    features = ColumnTransformation.apply
    if options.imputation == "released":
        features = partial(_released_features, test=split["test"])
    return joined(source, parts, hierarchy, split, ONTOLOGY_ROOTS, card, features)


def raw_files(source: str) -> dict[str, RawFile]:
    """The files of a benchmark by part: train, valid (not everywhere), test."""
    registry = _registry()
    return {
        part: RawFile(
            path=entry["path"],
            url=f"{registry['url']}/{entry['path']}",
            sha256=entry["sha256"],
            git_blob=entry.get("git_blob"),
        )
        for part, entry in registry["sources"][source].items()
    }


@cache
def _registry() -> Mapping[str, Any]:
    return json.loads((resources.files(__package__) / "benchmarks.json").read_text())


def _split(
    parts: Mapping[str, ClusArff], options: BenchmarkOptions, sampling: Sampling
) -> dict[str, np.ndarray]:
    split = rows_of(parts)
    if isinstance(options, PairOptions):
        split["train"], split["valid"] = sampling.hold_out(split["train"], options.valid_fraction)
    return split


def _released_features(
    transformation: ColumnTransformation, raw: np.ndarray, test: np.ndarray
) -> np.ndarray:
    columns = one_hot(raw, transformation.levels)
    complete = filled(columns, transformation.filling)
    means = column_means(columns, test, otherwise=transformation.filling)
    complete[test] = filled(columns[test], means)
    return transformation.standardised(complete)


def _origin(paths: Mapping[str, Path]) -> dict[str, Any]:
    registry = _registry()
    return {
        "source": registry["repository"],
        "source_commit": registry["commit"],
        "source_sha256": {part: sha256(path) for part, path in paths.items()},
        "licence": "none stated with the data; the repository that hosts it is GPL-3.0",
    }
