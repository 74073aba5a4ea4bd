"""What training leaves on disk, and all that later stages read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from safetensors.numpy import load_file, save_file

from rarenodes.datasets.dataset import Dataset
from rarenodes.folders import (
    UnreadableFile,
    reading,
    verified,
    write_checksums,
    writing,
)

NODES, SEEDS, HISTORY = "nodes.parquet", "seeds.csv", "history.csv"
PROBABILITIES = "probabilities.safetensors"
INFLUENCES = "influences.safetensors"
# Beside the probabilities: which examples are their rows, which nodes their columns.
ROWS, COLUMNS = "examples.csv", "nodes.csv"


@dataclass(frozen=True)
class Results:
    """What training a variant on a data set leaves.

    Probabilities are kept, and scored by the stage `score`; or they are too many, and `nodes` and
    `seeds` hold the scores that were taken from them where they were made.

    Attributes:
        history: a row per seed and epoch: learning curves.
        test: `[seeds, test examples, evaluated nodes]`, or None where not kept.
        valid: the same for the validation part; None also where it was trained on.
        nodes: a row per seed and evaluated node, where probabilities are not kept.
        seeds: a row per seed: pooled scores, where probabilities are not kept.
        influences: how far each test example moves macro scores of each rarity bin, see
            `rarenodes.inference.influence`, where probabilities are not kept.

    """

    history: pd.DataFrame
    test: Float[ndarray, "seeds test nodes"] | None = None
    valid: Float[ndarray, "seeds valid nodes"] | None = None
    nodes: pd.DataFrame | None = None
    seeds: pd.DataFrame | None = None
    influences: Float[ndarray, "seeds columns bins test"] | None = None

    def save(self, folder: Path) -> None:
        """Write one file for each table, one for probabilities, and their checksums.

        Raises:
            OSError: they cannot be written.

        """
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.history.to_csv(folder / HISTORY, index=False)
            names = [HISTORY]
            if self.nodes is not None:
                self.nodes.to_parquet(folder / NODES, index=False)
                self.seeds.to_csv(folder / SEEDS, index=False)
                names += [NODES, SEEDS]
            if self.influences is not None:
                save_file({"test": self.influences}, folder / INFLUENCES)
                names.append(INFLUENCES)
            if self.test is not None:
                kept = {"test": self.test, "valid": self.valid}
                kept = {part: values for part, values in kept.items() if values is not None}
                save_file(kept, folder / PROBABILITIES)
                names.append(PROBABILITIES)
            write_checksums(folder, names)

    @classmethod
    def load(cls, folder: Path, dataset: Dataset | None = None) -> "Results":
        """Read what `save` wrote.

        Args:
            folder: the results.
            dataset: what they are to be of, where that is to be looked at.

        Raises:
            FileNotFoundError: the folder holds no results.
            UnreadableFile: a file is damaged, not the one that was written, or of other data.

        """
        results, mend = cls._read(folder)
        if dataset is not None:
            _check_names(folder, dataset, mend)
        return results

    @classmethod
    def _read(cls, folder: Path) -> tuple["Results", str]:
        name = folder.parent.name
        combined = folder.parent.parent.name == "combined"
        stage = f"combine@{name}" if combined else f"train@{name}-{folder.name}"
        mend = verified(folder, HISTORY, "results", stage)
        with reading(folder / HISTORY, mend):
            history = _of_seeds(pd.read_csv(folder / HISTORY))
        probabilities, influences, nodes, seeds = {}, {}, None, None
        if (folder / PROBABILITIES).exists():
            with reading(folder / PROBABILITIES, mend):
                probabilities = load_file(folder / PROBABILITIES)
        if (folder / NODES).exists():
            with reading(folder / NODES, mend):
                nodes = _of_seeds(pd.read_parquet(folder / NODES))
            with reading(folder / SEEDS, mend):
                seeds = _of_seeds(pd.read_csv(folder / SEEDS))
        if (folder / INFLUENCES).exists():
            with reading(folder / INFLUENCES, mend):
                influences = load_file(folder / INFLUENCES)
        parts = (probabilities.get(part) for part in ("test", "valid"))
        return cls(history, *parts, nodes, seeds, influences.get("test")), mend


def name_rows_and_columns(dataset: Dataset, folder: Path) -> None:
    """Write which examples are the rows of the probabilities, and which nodes their columns."""
    for name, table in _names(dataset).items():
        table.to_csv(folder / name, index=False)


def _names(dataset: Dataset) -> dict[str, pd.DataFrame]:
    parts = [
        pd.DataFrame({"part": part, "example": dataset.split[part]}) for part in ("valid", "test")
    ]
    nodes = np.array(dataset.hierarchy.nodes)[dataset.evaluated]
    return {
        ROWS: pd.concat(parts, ignore_index=True),
        COLUMNS: pd.DataFrame({"node": nodes.astype(str)}),
    }


def _check_names(folder: Path, dataset: Dataset, mend: str) -> None:
    """Refuse results of examples or nodes that the data set no longer has in these places."""
    for name, expected in _names(dataset).items():
        if not (folder / name).exists():  # committees stand on what their members were trained on
            continue
        with reading(folder / name, mend):
            found = pd.read_csv(folder / name, dtype=str, keep_default_na=False)
        if found.to_numpy().tolist() != expected.astype(str).to_numpy().tolist():
            what = "examples" if name == ROWS else "nodes"
            raise UnreadableFile(
                f"{folder / name}: of other {what} than the data set has now, which was prepared "
                f"anew: {mend}"
            )


def _of_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The table, if it has a row per seed and something: all of them have."""
    if "seed" not in table.columns:
        raise ValueError("expected a column 'seed'")
    return table
