"""One's own files in the format of the CLUS system: hierarchical ARFF, a file a part."""

import operator
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from pydantic import Field, model_validator

from rarenodes.datasets.arff import ROOT, ArffError, ClusArff, read_clus_arff
from rarenodes.datasets.columns import ColumnTransformation, fit_columns
from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.raw_files import sha256
from rarenodes.datasets.sampling import Sampling
from rarenodes.datasets.targets import closed_targets, unknown_below, unknown_in_card
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.settings import FileName, Settings, unknown_name

MakeFeatures = Callable[[ColumnTransformation, np.ndarray], np.ndarray]


class ClusOptions(Settings):
    """Where the files lie.

    Attributes:
        train: file of training examples; paths are relative to the data folder.
        test: file of test examples.
        valid: file of validation examples; without it, a random share of `train` is held out.
        valid_fraction: this share.
        not_evaluated: nodes that are not scored, such as the roots of several ontologies, as the
            root of all is not in any case.
        unknown_below: whether a label that stops half-way says nothing about the nodes below it:
            training and scores leave these pairs out. Otherwise the example is negative in them.

    """

    train: FileName
    test: FileName
    valid: FileName | None = None
    valid_fraction: float = Field(0.15, gt=0, lt=1)
    not_evaluated: list[str] = Field([])
    unknown_below: bool = Field(False, exclude_if=operator.not_)

    @model_validator(mode="after")
    def _be_different_files(self):
        given = [path for path in (self.train, self.valid, self.test) if path is not None]
        if len({Path(path) for path in given}) < len(given):
            raise ValueError(
                f"found one file for two parts among {', '.join(given)}, expected a file for each"
            )
        return self


def load(source: str, root: Path, options: ClusOptions, sampling: Sampling) -> Dataset:
    """A data set from one's own CLUS files, prepared as the benchmarks are.

    Categories become 0/1 columns, missing values take the column's mean, and columns are
    standardised, over train + valid.

    Args:
        source: name of the data set.
        root: data folder, to which the files' paths are relative.
        options: the files.
        sampling: draws `valid` where no file gives it, and limits `train`.

    Raises:
        FileNotFoundError: no such file.
        OSError: the system does not let a file be read.
        ArffError: a file cannot be read, or the parts do not agree.
        SettingsError: a node that is not to be evaluated is none.

    """
    paths = dict(zip(_parts(options), raw_files(options, root), strict=True))
    parts = read_parts(paths)
    train = parts["train"]
    split = rows_of(parts)
    if "valid" not in split:
        if len(split["train"]) < 2:
            raise ArffError(
                f"{paths['train']}: found one example, expected at least two, of which one is held "
                "out: use more data, or name a file by the option valid"
            )
        split["train"], split["valid"] = sampling.hold_out(split["train"], options.valid_fraction)
    split = sampling.limit(split)
    hierarchy = Hierarchy(train.edges)
    for node in options.not_evaluated:
        if node not in hierarchy.index:
            raise unknown_name("node", node, hierarchy.nodes, "options of arff: not_evaluated")
    card = {
        "source": {part: getattr(options, part) for part in paths},
        "source_sha256": {part: sha256(path) for part, path in paths.items()},
        "options": options.model_dump(),
        "seed": sampling.seed,
        "train_fraction": sampling.train_fraction,
    }
    return joined(
        source,
        parts,
        hierarchy,
        split,
        options.not_evaluated,
        card,
        stops_leave_open=options.unknown_below,
    )


def joined(
    source: str,
    parts: Mapping[str, ClusArff],
    hierarchy: Hierarchy,
    split: Mapping[str, Int[np.ndarray, " part"]],
    not_evaluated: Collection[str],
    card: Mapping[str, Any],
    features: MakeFeatures = ColumnTransformation.apply,
    *,
    stops_leave_open: bool = False,
) -> Dataset:
    """One data set of the parts, columns fitted on train + valid.

    Args:
        source: name of the data set.
        parts: from `read_parts`.
        hierarchy: of their edges.
        split: rows of the parts where all stand below each other; from `rows_of`, limited or not.
        not_evaluated: nodes that are not scored, as the root is not; others than the hierarchy's do
            not matter.
        card: what is known of the data set beside what the files hold.
        features: makes them from the fitted transformation and all rows `[examples, attributes]`.
        stops_leave_open: whether a label that stops half-way says nothing about the nodes below.

    """
    train = parts["train"]
    raw = np.vstack([part.values for part in parts.values()])
    learned_from = np.concatenate([split["train"], split["valid"]])
    labels = [names for part in parts.values() for names in part.labels]
    targets = closed_targets(labels, hierarchy)
    unknown = unknown_below(targets, hierarchy) if stops_leave_open else None
    transformation = fit_columns(train.attributes, raw, train.levels, learned_from)
    return Dataset(
        name=source,
        transformation=transformation,
        features=features(transformation, raw),
        targets=targets,
        hierarchy=hierarchy,
        split=dict(split),
        evaluated=~np.isin(hierarchy.nodes, [ROOT, *not_evaluated]),
        card={
            **card,
            "attributes": len(train.attributes),
            "categorical_attributes": sum(levels is not None for levels in train.levels),
            "missing_values": int(np.isnan(raw).sum()),
            "missing_values_in_test": int(np.isnan(raw[split["test"]]).sum()),
            **unknown_in_card(unknown),
        },
        unknown=unknown,
    )


def raw_files(options: ClusOptions, root: Path) -> list[Path]:
    """The files that the data set is made of: train, valid if given, test."""
    return [root / getattr(options, part) for part in _parts(options)]


def _parts(options: ClusOptions) -> list[str]:
    return [part for part in ("train", "valid", "test") if getattr(options, part) is not None]


def read_parts(paths: Mapping[str, Path]) -> dict[str, ClusArff]:
    """The files of a data set, by part.

    Raises:
        OSError: a file is missing or cannot be read.
        ArffError: it is no hierarchical ARFF file, or of another data set than `train`.

    """
    parts = {part: read_clus_arff(path) for part, path in paths.items()}
    train = parts["train"]
    for part, content in parts.items():
        for what in ("attributes", "levels", "edges"):
            if getattr(content, what) != getattr(train, what):
                raise ArffError(
                    f"{paths[part]}: the {what} differ from those of {paths['train']}; expected "
                    "the same in all parts: the files are of different data sets"
                )
    return parts


def rows_of(parts: Mapping[str, ClusArff]) -> dict[str, Int[np.ndarray, " part"]]:
    """The rows of each part where all stand below each other."""
    sizes = [len(part.labels) for part in parts.values()]
    starts = np.cumsum([0, *sizes[:-1]])
    return {
        part: np.arange(start, start + size)
        for part, start, size in zip(parts, starts, sizes, strict=True)
    }
