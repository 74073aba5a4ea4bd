"""What every source of data is turned into, and how it is stored."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import sparse

from rarenodes.datasets.files import FileFault, brief, decoded, parsed_json, read_bytes
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.settings import Settings, SettingsError, read_settings

SPLITS = ("train", "valid", "test")


class PreparedDataError(ValueError):
    """A prepared data set that is damaged; the message says where, what, and the mend."""


@runtime_checkable
class Transformation(Protocol):
    """What was learned from training examples to make features of any: see `transformations`."""

    kind: ClassVar[str]

    @property
    def width(self) -> int:
        """Number of features."""

    def apply(self, inputs: Any) -> Float[np.ndarray, "examples features"]:
        """Features of examples, float32."""


@dataclass(frozen=True)
class Dataset:
    """Examples with ancestor-closed targets in a hierarchy, and a fixed split.

    Attributes:
        name: name of the data set.
        features: `[examples, features]`, float32, standardised or otherwise ready for a network.
        targets: `[examples, nodes]`, sparse 0/1, ancestor-closed; column `i` is `hierarchy.nodes[i]`.
        hierarchy: the nodes and their edges.
        split: row indices of the parts `train`, `valid` and `test`; disjoint, sorted.
        evaluated: `[nodes]`, whether a node counts in the scores (a root does not).
        unknown: `[examples, nodes]`, sparse 0/1: where it is unknown whether an example belongs to a
            node; None where everything is known. A node below one that is known to be negative is
            known to be negative. Training and scores leave unknown pairs out.
        card: what a reader of results needs to know: where the data comes from, its licence, its
            checksum, the options it was built with, and anything that was dropped on the way.
        texts: the text of every example, where the source has texts.
        titles: what every node is called in words, where the source says.
        images: `[examples, height, width]`, one an example, grey values from 0 to 255, where examples are images;
            `features` are then made of them.
        transformation: how the features were made, where they were made from texts or columns; known
            to who loads a data set from its source, and not stored with it.

    """

    name: str
    features: Float[np.ndarray, "examples features"]
    targets: sparse.csr_array
    hierarchy: Hierarchy
    split: Mapping[str, Int[np.ndarray, " part"]]
    evaluated: Bool[np.ndarray, " nodes"]
    card: Mapping[str, Any]
    unknown: sparse.csr_array | None = field(default=None, repr=False)
    texts: tuple[str, ...] | None = field(default=None, repr=False)
    titles: tuple[str, ...] | None = field(default=None, repr=False)
    images: UInt8[np.ndarray, "images height width"] | None = field(default=None, repr=False)
    transformation: Transformation | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        examples, nodes = self.targets.shape
        if len(self.features) != examples or nodes != len(self.hierarchy):
            raise ValueError(
                f"{self.name}: targets are {examples} × {nodes}, but there are {len(self.features)} "
                f"rows of features and {len(self.hierarchy)} nodes"
            )
        for what, items, expected in (
            ("texts", self.texts, examples),
            ("images", self.images, examples),
            ("titles", self.titles, nodes),
            ("evaluated", self.evaluated, nodes),
        ):
            if items is not None and len(items) != expected:
                raise ValueError(f"{self.name}: found {len(items)} {what}, expected {expected}")
        self._check_split(examples)
        self._check_unknown()
        if not np.isfinite(self.features).all():
            row, column = (int(i[0]) for i in np.nonzero(~np.isfinite(self.features)))
            raise ValueError(
                f"{self.name}: feature {column} of example {row} is {self.features[row, column]}, "
                "expected a finite number: it lies too far from the training values of its column; "
                "correct it or leave the column out"
            )
        if not self.counts("train")[self.evaluated].any():
            raise ValueError(
                f"{self.name}: no evaluated node is positive in the training split of "
                f"{len(self.split['train'])} examples: use more data or a larger train_fraction"
            )

    def _check_split(self, examples: int) -> None:
        rows = np.concatenate([self.split[part] for part in SPLITS])
        outside = rows.size and not 0 <= rows.min() <= rows.max() < examples
        if outside or np.unique(rows).size < rows.size:
            raise ValueError(
                f"{self.name}: the parts {', '.join(SPLITS)} overlap or name rows outside of the "
                f"{examples} examples"
            )

    def _check_unknown(self) -> None:
        if self.unknown is None:
            return
        if self.unknown.shape != self.targets.shape:
            raise ValueError(
                f"{self.name}: unknown is {' × '.join(map(str, self.unknown.shape))}, expected "
                f"{' × '.join(map(str, self.targets.shape))} as the targets"
            )
        both = self.unknown.multiply(self.targets).tocoo()
        if both.nnz:
            row, column = int(both.row[0]), int(both.col[0])
            raise ValueError(
                f"{self.name}: example {row} is positive in node {self.hierarchy.nodes[column]!r} and "
                "unknown there, expected one of the two"
            )

    @property
    def names(self) -> dict[str, str]:
        """What every node is called in words; its own name where the source says no more."""
        return dict(zip(self.hierarchy.nodes, self.titles or self.hierarchy.nodes, strict=True))

    def counts(self, part: str) -> Int[np.ndarray, " nodes"]:
        """Number of positive examples of every node in a part of the split."""
        return np.asarray(self.targets[self.split[part]].sum(axis=0), dtype=np.int64).ravel()

    def known_counts(self, part: str) -> Int[np.ndarray, " nodes"]:
        """Number of examples in a part of the split that say whether they belong to a node."""
        rows = self.split[part]
        examples = np.full(len(self.hierarchy), len(rows), dtype=np.int64)
        if self.unknown is None:
            return examples
        return examples - np.asarray(self.unknown[rows].sum(axis=0, dtype=np.int64)).ravel()

    def checksum(self) -> str:
        """SHA-256 of features, images, targets, what is unknown, hierarchy and split, independent of file formats."""
        return _checksum(self._arrays(), self.hierarchy)

    def save(self, folder: str | Path) -> None:
        """Write `arrays.safetensors`, `dataset.json` and, where there are texts, `texts.json`.

        Raises:
            OSError: the folder cannot be written to, or the disk is full.

        """
        folder = Path(folder)
        words = {"name": self.name, "titles": self.titles, "card": dict(self.card)}
        description = {
            **words,
            "checksum": self.checksum(),
            "words_checksum": _words_checksum(words, self.texts),
            "nodes": len(self.hierarchy),
            "edges": self.hierarchy.edges,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(self._arrays(), folder / "arrays.safetensors")
            _write_json(folder / "dataset.json", description)
            if self.texts is not None:
                _write_json(folder / "texts.json", self.texts)
        except (OSError, SafetensorError) as error:
            said = getattr(error, "strerror", None) or brief(error, 200)
            raise OSError(
                f"{folder}: the prepared data set could not be written ({said}): free some space, "
                "or make the folder writable"
            ) from None

    @classmethod
    def load(cls, folder: str | Path) -> "Dataset":
        """Read what `save` wrote.

        Args:
            folder: where it lies; its name is that of the data set in the parameters.

        Raises:
            FileNotFoundError: the folder holds no prepared data set.
            OSError: the system does not let a file be read.
            PreparedDataError: a file is damaged, or was not written by `save`, or not by the same.

        """
        folder = Path(folder)
        if not (folder / "dataset.json").exists():
            raise FileNotFoundError(f"{folder} holds no prepared data set: {_mend(folder)}")
        description = _read_description(folder)
        arrays = _read_arrays(folder, description)
        texts = _read_texts(folder)
        words = {key: getattr(description, key) for key in ("name", "titles", "card")}
        if description.words_checksum != _words_checksum(words, texts):
            raise _damaged(
                folder, f"{folder}/dataset.json or texts.json: not what its checksum says"
            )
        try:
            hierarchy = Hierarchy(description.edges)
            # Before anything is made of the arrays: a wrong index reads memory that is not theirs.
            if description.checksum != _checksum(arrays, hierarchy):
                raise _damaged(folder, f"{folder}/arrays.safetensors: not what its checksum says")
            shape = (len(arrays["features"]), len(hierarchy))
            return cls(
                name=description.name,
                features=arrays["features"],
                targets=_ones_at(arrays, "target", shape),
                hierarchy=hierarchy,
                split={part: arrays[f"split_{part}"] for part in SPLITS},
                evaluated=arrays["evaluated"],
                card=description.card,
                unknown=_ones_at(arrays, "unknown", shape) if "unknown_columns" in arrays else None,
                images=arrays.get("images"),
                texts=None if texts is None else tuple(texts),
                titles=None if description.titles is None else tuple(description.titles),
            )
        except PreparedDataError:
            raise
        except ValueError as error:
            raise _damaged(folder, f"{folder}/dataset.json: {brief(error)}") from None

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "features": self.features.astype(np.float32),
            **_places(self.targets, "target"),
            "evaluated": self.evaluated.astype(bool),
            **{f"split_{part}": self.split[part].astype(np.int64) for part in SPLITS},
            **({} if self.images is None else {"images": self.images}),
            **({} if self.unknown is None else _places(self.unknown, "unknown")),
        }


class _Description(Settings):
    """Content of `dataset.json`."""

    name: str
    titles: list[str] | None
    card: dict[str, Any]
    checksum: str
    words_checksum: str
    nodes: int
    edges: list[tuple[str, str]]


# Type and number of dimensions of every array.
_ARRAYS = {
    "features": (np.float32, 2),
    "target_row_starts": (np.int64, 1),
    "target_columns": (np.int32, 1),
    "evaluated": (np.bool_, 1),
    **{f"split_{part}": (np.int64, 1) for part in SPLITS},
    "images": (np.uint8, 3),
    "unknown_row_starts": (np.int64, 1),
    "unknown_columns": (np.int32, 1),
}
# Arrays that only some data sets have.
_OPTIONAL = {"images", "unknown_row_starts", "unknown_columns"}


def _places(table: sparse.csr_array, name: str) -> dict[str, np.ndarray]:
    """Where a sparse 0/1 table has its ones, as arrays."""
    ordered = table.sorted_indices()
    return {
        f"{name}_row_starts": ordered.indptr.astype(np.int64),
        f"{name}_columns": ordered.indices.astype(np.int32),
    }


def _ones_at(
    arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, int]
) -> sparse.csr_array:
    """What `_places` was given."""
    columns = arrays[f"{name}_columns"]
    ones = np.ones(len(columns), dtype=np.uint8)
    return sparse.csr_array((ones, columns, arrays[f"{name}_row_starts"]), shape=shape)


def _checksum(arrays: Mapping[str, np.ndarray], hierarchy: Hierarchy) -> str:
    digest = hashlib.sha256()
    for name in (name for name in _ARRAYS if name in arrays):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    digest.update(json.dumps([hierarchy.nodes, hierarchy.edges]).encode())
    return digest.hexdigest()


def _words_checksum(words: Mapping[str, Any], texts: Sequence[str] | None) -> str:
    """SHA-256 of what `checksum` leaves out, since no number depends on it."""
    return hashlib.sha256(json.dumps([words, texts], sort_keys=True).encode()).hexdigest()


def _mend(folder: Path) -> str:
    name = folder.name
    return f"run `dvc repro prepare@{name}` or `python -m rarenodes prepare {name}`"


def _damaged(folder: Path, problem: str) -> PreparedDataError:
    return PreparedDataError(
        f"{problem}; expected what `prepare` wrote, so it is damaged or of another version: "
        f"{_mend(folder)}"
    )


def _read_description(folder: Path) -> _Description:
    path = folder / "dataset.json"
    try:
        values = _read_json(path)
        if not isinstance(values, dict):
            raise FileFault(f"{path}: found {type(values).__name__}, expected an object")
        values["edges"] = [tuple(e) if isinstance(e, list) else e for e in values.get("edges", ())]
        return read_settings(_Description, values, str(path))
    except (FileFault, SettingsError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise _damaged(folder, first if str(path) in first else f"{path}: {first}") from None


def _read_arrays(folder: Path, description: _Description) -> dict[str, np.ndarray]:
    path = folder / "arrays.safetensors"
    if not path.is_file():
        raise _damaged(folder, f"{path}: no such file")
    try:
        arrays = load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise _damaged(folder, f"{path}: {brief(error, 200)}") from None
    found = {name: (array.dtype, array.ndim) for name, array in arrays.items()}
    expected = {
        name: (np.dtype(kind), ndim)
        for name, (kind, ndim) in _ARRAYS.items()
        if name in found or name not in _OPTIONAL
    }
    if found != expected:
        differ = sorted(n for n in found.keys() | expected if found.get(n) != expected.get(n))
        raise _damaged(folder, f"{path}: other arrays ({', '.join(differ)[:100]})")
    return arrays


def _read_texts(folder: Path) -> list[str] | None:
    path = folder / "texts.json"
    if not path.exists():
        return None
    try:
        texts = _read_json(path)
    except FileFault as fault:
        raise _damaged(folder, str(fault)) from None
    if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise _damaged(folder, f"{path}: no list of texts")
    return texts


def _read_json(path: Path) -> Any:
    return parsed_json(path, decoded(path, read_bytes(path, "a prepared data set")))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
