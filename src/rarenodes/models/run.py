"""What one model is trained with: a variant, or a committee and the variants that sit on it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rarenodes.datasets.dataset import SPLITS, Dataset
from rarenodes.training.loop import Budget, Streams
from rarenodes.training.variants import VariantSettings


@dataclass(frozen=True)
class Run:
    """One run of a variant.

    Attributes:
        variant: how to train.
        budget: how long, and on which parts; of a committee that of its members counts.
        streams: random streams, which also name data set and variant.
        checkpoint: folder for the state of an unfinished training.
        members: runs of a committee's members, in the order of its settings; else none.

    """

    variant: VariantSettings
    budget: Budget
    streams: Streams
    checkpoint: Path | None = None
    members: "tuple[Run, ...]" = ()

    @property
    def name(self) -> str:
        """Of the variant."""
        return self.streams.variant

    @property
    def trained(self) -> "Iterator[Run]":
        """The runs that are trained: this one, or those of its members and theirs."""
        if not self.members:
            yield self
        for member in self.members:
            yield from member.trained

    @property
    def fit_on(self) -> list[str]:
        """Parts of the split that anything in it is trained on."""
        return [part for part in SPLITS if any(part in run.budget.fit_on for run in self.trained)]

    def holds_out(self, dataset: Dataset) -> bool:
        """Whether there are validation data that nothing in it is trained on."""
        return "valid" not in self.fit_on and len(dataset.split["valid"]) > 0
