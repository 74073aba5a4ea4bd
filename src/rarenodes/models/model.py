"""A trained model: from texts or columns to nodes, with everything it needs to be carried away."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from tqdm import tqdm

from rarenodes.datasets.transformations import Fitted
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.models import files
from rarenodes.models.inputs import Inputs, inputs_of
from rarenodes.models.predictors import Predictor
from rarenodes.models.selection import (
    SCOPES,
    Children,
    Selected,
    above,
    most_probable,
    most_specific,
    paths,
)

# Examples whose features and probabilities are in memory at once.
BATCH = 4096
# A bar for less would flash.
SECONDS_BEFORE_BAR = 1.0
COLUMNS = ("row", "node", "name", "path", "probability")


@dataclass(frozen=True)
class Model:
    """What a variant trained, and how texts or columns become its features.

    Attributes:
        hierarchy: the nodes.
        transformation: how features are made.
        predictor: what was trained.
        titles: what every node is called in words; its own name where the data say no more.
        evaluated: `[nodes]`, whether a node was scored; one that was not (a root) is predicted only
            as the end of a path.
        thresholds: by scope (`global`, `depth`, `node`) `[nodes]`, tuned on validation data; empty
            where none were held out. NaN for nodes that were not scored.
        card: what a reader has to know: data, variant, budget, scores, limits.

    """

    hierarchy: Hierarchy
    transformation: Fitted
    predictor: Predictor = field(repr=False)
    titles: tuple[str, ...] = field(repr=False)
    evaluated: Bool[np.ndarray, " nodes"] = field(repr=False)
    thresholds: Mapping[str, Float[np.ndarray, " nodes"]] = field(repr=False)
    card: Mapping[str, Any] = field(repr=False)

    def __post_init__(self):
        nodes, width = len(self.hierarchy), self.transformation.width
        if (self.predictor.nodes, self.predictor.width) != (nodes, width):
            raise ValueError(
                f"what was trained is of {self.predictor.width} features and {self.predictor.nodes} "
                f"nodes, expected {width} and {nodes}"
            )
        for what, found in (
            ("titles", self.titles), ("evaluated", self.evaluated), *self.thresholds.items()
        ):  # fmt: skip
            if len(found) != nodes:
                raise ValueError(
                    f"{what}: found {len(found)}, expected one for each of {nodes} nodes"
                )
        if self.thresholds and set(self.thresholds) != set(SCOPES):
            raise ValueError(f"found thresholds {sorted(self.thresholds)}, expected {SCOPES}")

    def probabilities(self, inputs: Any) -> Float[np.ndarray, "examples nodes"]:
        """Coherent probabilities of all nodes, all at once.

        Args:
            inputs: texts, a matrix or a pandas table, as `predict` takes them.

        Returns:
            `[examples, nodes]`, float32, in [0, 1]; column `i` is `hierarchy.nodes[i]`. A root that is
            alone has 1: every example belongs to it.

        """
        batches = [block for _, block in self._blocks(inputs_of(inputs, self.transformation))]
        empty = np.empty((0, len(self.hierarchy)), dtype=np.float32)
        return np.concatenate([empty, *batches])

    def predict(
        self,
        inputs: Any,
        *,
        top: int | None = None,
        confidence: float | None = None,
        threshold: str | None = None,
        leaves: bool = False,
    ) -> pd.DataFrame:
        """The predicted nodes of every example.

        One of three rules says which nodes these are; without any it is the global threshold, or a
        confidence of one half where no threshold was tuned.

        Args:
            inputs: a sequence of texts, a matrix `[examples, columns]`, or a pandas table with the
                columns that the model was fitted on; what was given when it was fitted.
            top: so many nodes, the most probable.
            confidence: the deepest nodes that reach this probability: those of whose children none
                does; the root, where nothing below it does.
            threshold: all nodes above thresholds tuned on validation data: one for all nodes
                (`global`), one for each `depth`, or one for each `node`.
            leaves: with `top`, only nodes without children.

        Returns:
            A row per predicted node: `row` (of the example, from 0), `node`, `name`, `path` (names
            from the top, as `a > b > c`) and `probability`. The best of an example come first. An
            example for which nothing is predicted has no row.

        Raises:
            ValueError: inputs of another kind than the model was fitted on, or more than one rule,
                or one that cannot be.

        """
        tables = list(
            self.predictions(
                inputs_of(inputs, self.transformation),
                top=top,
                confidence=confidence,
                threshold=threshold,
                leaves=leaves,
            )
        )
        return pd.concat(tables, ignore_index=True)

    def predictions(
        self,
        inputs: Inputs,
        *,
        top: int | None = None,
        confidence: float | None = None,
        threshold: str | None = None,
        leaves: bool = False,
        progress: bool = True,
    ) -> Iterator[pd.DataFrame]:
        """What `predict` returns, batch by batch, so that memory does not grow with the examples.

        Args:
            inputs: from `rarenodes.models.inputs`.
            top: as in `predict`.
            confidence: as in `predict`.
            threshold: as in `predict`.
            leaves: as in `predict`.
            progress: whether a terminal shows a bar where this takes long; not wanted where the
                tables themselves go to the terminal.

        """
        self._check_rule(top, confidence, threshold, leaves)
        if top is None and confidence is None and threshold is None:
            threshold, confidence = ("global", None) if self.thresholds else (None, 0.5)
        nodes = np.array(self.hierarchy.nodes, dtype=object)
        names, ways = np.array(self.titles, dtype=object), np.array(self._paths, dtype=object)
        # At least one table, so that no examples make an empty one with its columns.
        for first, block in self._blocks(inputs, progress) if len(inputs) else [(0, self._nothing)]:
            found = self._select(block, top, confidence, threshold, leaves)
            yield pd.DataFrame(
                {
                    "row": found.examples + first,
                    "node": nodes[found.nodes],
                    "name": names[found.nodes],
                    "path": ways[found.nodes],
                    "probability": block[found.examples, found.nodes],
                },
                columns=COLUMNS,
            )

    def save(self, folder: str | Path) -> None:
        """Write the model into a folder: see `rarenodes.models.files`.

        Raises:
            OSError: it cannot be written.

        """
        files.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> "Model":
        """Read what `save` wrote, on this or another machine.

        Args:
            folder: where it lies.
            device: where networks predict: `cpu`, `cuda` or `auto`.

        Raises:
            FileNotFoundError: there is no model.
            UnreadableFile: a file is missing or damaged, or the model is of a version of the library
                whose models this one does not read.

        """
        return cls(**files.load(Path(folder), device))

    @cached_property
    def _children(self) -> Children:
        return Children(self.hierarchy)

    @cached_property
    def _paths(self) -> list[str]:
        return paths(self.hierarchy, self.titles)

    @cached_property
    def _certain(self) -> np.ndarray:
        """The root, where there is one alone: every example belongs to it, whatever networks say."""
        roots = self.hierarchy.roots
        alone = len(roots) == 1 and not self.evaluated[self.hierarchy.index[roots[0]]]
        return np.array([self.hierarchy.index[root] for root in roots] if alone else [], dtype=int)

    @property
    def _nothing(self) -> np.ndarray:
        return np.empty((0, len(self.hierarchy)), dtype=np.float32)

    def _blocks(self, inputs: Inputs, progress: bool = True) -> Iterator[tuple[int, np.ndarray]]:
        """Number of the first example, and probabilities, of one batch after the other."""
        with tqdm(
            total=len(inputs), desc="predicting", unit="example", delay=SECONDS_BEFORE_BAR,
            disable=None if progress else True,
        ) as bar:  # fmt: skip
            for first, block in self._batches(inputs):
                yield first, block
                bar.update(len(block))

    def _batches(self, inputs: Inputs) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(inputs), BATCH):
            features = self.transformation.apply(inputs[start : start + BATCH])
            wrong = ~np.isfinite(features).all(axis=1)
            if wrong.any():
                raise ValueError(
                    f"row {start + int(np.flatnonzero(wrong)[0])}: a value lies too far from those "
                    "the model was fitted on: correct it, or leave it empty if it is missing"
                )
            done = start
            for block in self.predictor.predictions(features):
                block[:, self._certain] = 1
                yield done, block
                done += len(block)

    def _select(
        self,
        block: np.ndarray,
        top: int | None,
        confidence: float | None,
        threshold: str | None,
        leaves: bool,
    ) -> Selected:
        if top is not None:
            chosen_from = self.evaluated & self._children.leaves if leaves else self.evaluated
            return most_probable(block, top, chosen_from)
        if confidence is not None:
            return most_specific(block, confidence, self._children)
        return above(block, self.thresholds[threshold], self.evaluated)

    def _check_rule(
        self, top: int | None, confidence: float | None, threshold: str | None, leaves: bool
    ) -> None:
        if sum(rule is not None for rule in (top, confidence, threshold)) > 1:
            raise ValueError("expected one of top, confidence and threshold, found several")
        if leaves and top is None:
            raise ValueError("leaves is of top alone: give top, too")
        if top is not None and top < 1:
            raise ValueError(f"top: expected at least 1, found {top}")
        if confidence is not None and not 0 < confidence <= 1:
            raise ValueError(f"confidence: expected above 0 and at most 1, found {confidence:g}")
        if threshold is not None and threshold not in SCOPES:
            raise ValueError(f"threshold: expected one of {', '.join(SCOPES)}, found {threshold!r}")
        if threshold is not None and not self.thresholds:
            raise ValueError(
                "threshold: none were tuned, as no validation data were held out: use top or "
                "confidence"
            )
