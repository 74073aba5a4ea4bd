"""What every source of data is turned into, and how it is stored."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from safetensors.numpy import load_file, save_file
from scipy import sparse

from rarenodes.loss.hierarchy import Hierarchy

SPLITS = ("train", "valid", "test")


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
        card: what a reader of results needs to know: where the data comes from, its licence, its
            checksum, the options it was built with, and anything that was dropped on the way.
        texts: the text of every example, where the source has texts.
        titles: what every node is called in words, where the source says.
        images: `[examples, height, width]`, one an example, grey values from 0 to 255, where examples are images;
            `features` are then made of them.

    """

    name: str
    features: Float[np.ndarray, "examples features"]
    targets: sparse.csr_array
    hierarchy: Hierarchy
    split: Mapping[str, Int[np.ndarray, " part"]]
    evaluated: Bool[np.ndarray, " nodes"]
    card: Mapping[str, Any]
    texts: tuple[str, ...] | None = field(default=None, repr=False)
    titles: tuple[str, ...] | None = field(default=None, repr=False)
    images: UInt8[np.ndarray, "images height width"] | None = field(default=None, repr=False)

    def __post_init__(self):
        examples, nodes = self.targets.shape
        if len(self.features) != examples or nodes != len(self.hierarchy):
            raise ValueError(
                f"{self.name}: targets are {examples} × {nodes}, but there are {len(self.features)} "
                f"rows of features and {len(self.hierarchy)} nodes"
            )
        if self.images is not None and len(self.images) != examples:
            raise ValueError(
                f"{self.name}: there are {len(self.images)} images, but {examples} rows of targets"
            )
        if not self.counts("train")[self.evaluated].any():
            raise ValueError(
                f"{self.name}: no evaluated node is positive in the training split of "
                f"{len(self.split['train'])} examples: use more data or a larger train_fraction"
            )

    def counts(self, part: str) -> Int[np.ndarray, " nodes"]:
        """Number of positive examples of every node in a part of the split."""
        return np.asarray(self.targets[self.split[part]].sum(axis=0), dtype=np.int64).ravel()

    def checksum(self) -> str:
        """SHA-256 of features, images, targets, hierarchy and split, whatever the file format."""
        digest = hashlib.sha256()
        for array in self._arrays().values():
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(json.dumps([self.hierarchy.nodes, self.hierarchy.edges]).encode())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write `arrays.safetensors`, `dataset.json` and, where there are texts, `texts.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self._arrays(), folder / "arrays.safetensors")
        description = {
            "name": self.name,
            "checksum": self.checksum(),
            "nodes": len(self.hierarchy),
            "titles": self.titles,
            "edges": self.hierarchy.edges,
            "card": dict(self.card),
        }
        _write_json(folder / "dataset.json", description)
        if self.texts is not None:
            _write_json(folder / "texts.json", self.texts)

    @classmethod
    def load(cls, folder: Path) -> "Dataset":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: the folder holds no prepared data set.

        """
        if not (folder / "dataset.json").exists():
            raise FileNotFoundError(
                f"{folder} holds no prepared data set: run the stage prepare@{folder.name} first"
            )
        description = json.loads((folder / "dataset.json").read_text())
        arrays = load_file(folder / "arrays.safetensors")
        texts = folder / "texts.json"
        shape = (len(arrays["features"]), description["nodes"])
        ones = np.ones(len(arrays["target_columns"]), dtype=np.uint8)
        return cls(
            name=description["name"],
            features=arrays["features"],
            targets=sparse.csr_array(
                (ones, arrays["target_columns"], arrays["target_row_starts"]), shape=shape
            ),
            hierarchy=Hierarchy((child, parent) for child, parent in description["edges"]),
            split={part: arrays[f"split_{part}"] for part in SPLITS},
            evaluated=arrays["evaluated"],
            card=description["card"],
            texts=tuple(json.loads(texts.read_text())) if texts.exists() else None,
            titles=None if description["titles"] is None else tuple(description["titles"]),
            images=arrays.get("images"),
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        targets = self.targets.sorted_indices()
        return {
            "features": self.features.astype(np.float32),
            "target_row_starts": targets.indptr.astype(np.int64),
            "target_columns": targets.indices.astype(np.int32),
            "evaluated": self.evaluated.astype(bool),
            **{f"split_{part}": self.split[part].astype(np.int64) for part in SPLITS},
            **({} if self.images is None else {"images": self.images}),
        }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
