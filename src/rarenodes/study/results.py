"""What training leaves on disk, and all that later stages read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from rarenodes.folders import (
    reading,
    recover_folder,
    verify_checksums,
    write_checksums,
    writing,
)

NODES, SEEDS, HISTORY = "nodes.parquet", "seeds.csv", "history.csv"
PROBABILITIES = "probabilities.safetensors"


@dataclass(frozen=True)
class Results:
    """What training a variant on a data set leaves.

    Attributes:
        nodes: a row per seed and evaluated node: `rarenodes.scores.run_tables.score_run`'s table.
        seeds: a row per seed: pooled scores.
        history: a row per seed and epoch: learning curves.
        probabilities: `[seeds, test examples, evaluated nodes]`, or None where not kept.

    """

    nodes: pd.DataFrame
    seeds: pd.DataFrame
    history: pd.DataFrame
    probabilities: np.ndarray | None

    def save(self, folder: Path) -> None:
        """Write one file for each table, and their checksums.

        Raises:
            OSError: they cannot be written.

        """
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.nodes.to_parquet(folder / NODES, index=False)
            self.seeds.to_csv(folder / SEEDS, index=False)
            self.history.to_csv(folder / HISTORY, index=False)
            names = [NODES, SEEDS, HISTORY]
            if self.probabilities is not None:
                save_file({"test": self.probabilities}, folder / PROBABILITIES)
                names.append(PROBABILITIES)
            write_checksums(folder, names)

    @classmethod
    def load(cls, folder: Path) -> "Results":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: the folder holds no results.
            UnreadableFile: a file is damaged, or not the one that was written.

        """
        again = f"run the stage train@{folder.parent.name}-{folder.name}"
        recover_folder(folder)
        if not (folder / NODES).exists():
            raise FileNotFoundError(f"{folder} holds no results: {again} first")
        mend = f"{again} again, with dvc repro --force or without notebook"
        verify_checksums(folder, mend)
        with reading(folder / NODES, mend):
            nodes = _of_seeds(pd.read_parquet(folder / NODES))
        with reading(folder / SEEDS, mend):
            seeds = _of_seeds(pd.read_csv(folder / SEEDS))
        with reading(folder / HISTORY, mend):
            history = _of_seeds(pd.read_csv(folder / HISTORY))
        probabilities = None
        if (folder / PROBABILITIES).exists():
            with reading(folder / PROBABILITIES, mend):
                probabilities = load_file(folder / PROBABILITIES)["test"]
        return cls(nodes, seeds, history, probabilities)


def _of_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The table, if it has a row per seed and something: all of them have."""
    if "seed" not in table.columns:
        raise ValueError("expected a column 'seed'")
    return table
