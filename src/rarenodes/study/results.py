"""What training leaves on disk, and all that later stages read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file


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
        """Write one file for each table."""
        folder.mkdir(parents=True, exist_ok=True)
        self.nodes.to_parquet(folder / "nodes.parquet", index=False)
        self.seeds.to_csv(folder / "seeds.csv", index=False)
        self.history.to_csv(folder / "history.csv", index=False)
        if self.probabilities is not None:
            save_file({"test": self.probabilities}, folder / "probabilities.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "Results":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: the folder holds no results.

        """
        if not (folder / "nodes.parquet").exists():
            raise FileNotFoundError(
                f"{folder} holds no results: run the stage train@{folder.parent.name}-{folder.name} first"
            )
        kept = folder / "probabilities.safetensors"
        return cls(
            nodes=pd.read_parquet(folder / "nodes.parquet"),
            seeds=pd.read_csv(folder / "seeds.csv"),
            history=pd.read_csv(folder / "history.csv"),
            probabilities=load_file(kept)["test"] if kept.exists() else None,
        )
