"""A committee of trained variants, as the trained part of a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from safetensors.numpy import load_file

from rarenodes.folders import reading, save_arrays, writing
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.models.predictors.predictor import Predictor
from rarenodes.training.committee import Weights, combine

MEMBERS = "members"


@dataclass(frozen=True)
class Committee(Predictor):
    """Members of any kind, whose probabilities are averaged.

    Attributes:
        members: by name.
        weights: how much each counts, `[members]` or `[members, nodes]`.
        mean: `geometric` or `arithmetic`.
        hierarchy: the nodes.
        traces: as in `rarenodes.training.committee.combine`, `[members, nodes]`, of a geometric mean.

    """

    family: ClassVar[str] = "committee"
    files: ClassVar[tuple[str, ...]] = ("committee.safetensors",)

    members: Mapping[str, Predictor]
    weights: Weights
    mean: str
    hierarchy: Hierarchy
    traces: Float[np.ndarray, "members nodes"] | None = None

    @property
    def width(self) -> int:
        """Number of features."""
        return next(iter(self.members.values())).width

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.hierarchy)

    @property
    def stored_examples(self) -> int:
        """Number of training examples that members look up."""
        return max(member.stored_examples for member in self.members.values())

    def predictions(
        self, features: Float[np.ndarray, "examples features"]
    ) -> Iterator[Float[np.ndarray, "batch nodes"]]:
        """Coherent probabilities, batch by batch."""
        of_members = [member.predictions(features) for member in self.members.values()]
        for some in in_step(of_members):
            yield combine(some, self.weights, self.mean, self.hierarchy, traces=self.traces)

    def description(self) -> dict[str, Any]:
        """What is to be known beside the files, of all members."""
        members = {
            name: {"family": member.family, "predictor": member.description()}
            for name, member in self.members.items()
        }
        return {"mean": self.mean, MEMBERS: members}

    def save(self, folder: Path) -> None:
        """Write the committee's file, and those of each member in a folder of its name."""
        arrays = {"weights": self.weights}
        arrays |= {} if self.traces is None else {"traces": self.traces}
        with writing(folder):
            save_arrays(arrays, folder / self.files[0])
            for name, member in self.members.items():
                (folder / MEMBERS / name).mkdir(parents=True)
                member.save(folder / MEMBERS / name)

    @classmethod
    def load(
        cls,
        folder: Path,
        hierarchy: Hierarchy,
        description: dict[str, Any],
        mend: str,
        members: Mapping[str, Predictor],
    ) -> "Committee":
        """Read what `save` wrote, but for the members."""
        with reading(folder / cls.files[0], mend):
            arrays = load_file(folder / cls.files[0])
            weights, traces = arrays["weights"], arrays.get("traces")
            if len(weights) != len(members):
                raise ValueError(f"found {len(weights)} weights for {len(members)} members")
        return cls(members, weights, str(description["mean"]), hierarchy, traces)

    def to(self, device: str) -> None:
        """Let all members predict there."""
        for member in self.members.values():
            member.to(device)


def in_step(
    streams: Sequence[Iterator[Float[np.ndarray, "batch nodes"]]],
) -> Iterator[list[Float[np.ndarray, "batch nodes"]]]:
    """The same examples from all, whose batches are of different sizes."""
    held = [next(stream, None) for stream in streams]
    while all(batch is not None for batch in held):
        size = min(len(batch) for batch in held)
        yield [batch[:size] for batch in held]
        held = [
            batch[size:] if len(batch) > size else next(stream, None)
            for batch, stream in zip(held, streams, strict=True)
        ]
