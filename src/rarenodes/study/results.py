"""What training leaves on disk, and all that later stages read."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from safetensors.numpy import load_file, save_file


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
        """Write one file for each table, and one for probabilities."""
        folder.mkdir(parents=True, exist_ok=True)
        self.history.to_csv(folder / "history.csv", index=False)
        if self.nodes is not None:
            self.nodes.to_parquet(folder / "nodes.parquet", index=False)
            self.seeds.to_csv(folder / "seeds.csv", index=False)
        kept = {"test": self.test, "valid": self.valid}
        if self.test is not None:
            kept = {part: values for part, values in kept.items() if values is not None}
            save_file(kept, folder / "probabilities.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "Results":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: the folder holds no results.

        """
        if not (folder / "history.csv").exists():
            raise FileNotFoundError(
                f"{folder} holds no results: run the stage train@{folder.parent.name}-{folder.name} first"
            )
        kept, scored = folder / "probabilities.safetensors", folder / "nodes.parquet"
        probabilities = load_file(kept) if kept.exists() else {}
        return cls(
            history=pd.read_csv(folder / "history.csv"),
            test=probabilities.get("test"),
            valid=probabilities.get("valid"),
            nodes=pd.read_parquet(scored) if scored.exists() else None,
            seeds=pd.read_csv(folder / "seeds.csv") if scored.exists() else None,
        )
