"""What training leaves on disk, and all that later stages read."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from safetensors.numpy import load_file, save_file

from rarenodes.folders import (
    reading,
    verified,
    write_checksums,
    writing,
)

NODES, SEEDS, HISTORY = "nodes.parquet", "seeds.csv", "history.csv"
PROBABILITIES = "probabilities.safetensors"


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

    """

    history: pd.DataFrame
    test: Float[ndarray, "seeds test nodes"] | None = None
    valid: Float[ndarray, "seeds valid nodes"] | None = None
    nodes: pd.DataFrame | None = None
    seeds: pd.DataFrame | None = None

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
            if self.test is not None:
                kept = {"test": self.test, "valid": self.valid}
                kept = {part: values for part, values in kept.items() if values is not None}
                save_file(kept, folder / PROBABILITIES)
                names.append(PROBABILITIES)
            write_checksums(folder, names)

    @classmethod
    def load(cls, folder: Path) -> "Results":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: the folder holds no results.
            UnreadableFile: a file is damaged, or not the one that was written.

        """
        dataset = folder.parent
        combined = dataset.parent.name == "combined"
        stage = f"combine@{dataset.name}" if combined else f"train@{dataset.name}-{folder.name}"
        mend = verified(folder, HISTORY, "results", stage)
        with reading(folder / HISTORY, mend):
            history = _of_seeds(pd.read_csv(folder / HISTORY))
        probabilities, nodes, seeds = {}, None, None
        if (folder / PROBABILITIES).exists():
            with reading(folder / PROBABILITIES, mend):
                probabilities = load_file(folder / PROBABILITIES)
        if (folder / NODES).exists():
            with reading(folder / NODES, mend):
                nodes = _of_seeds(pd.read_parquet(folder / NODES))
            with reading(folder / SEEDS, mend):
                seeds = _of_seeds(pd.read_csv(folder / SEEDS))
        return cls(history, probabilities.get("test"), probabilities.get("valid"), nodes, seeds)


def _of_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The table, if it has a row per seed and something: all of them have."""
    if "seed" not in table.columns:
        raise ValueError("expected a column 'seed'")
    return table
