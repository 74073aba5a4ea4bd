"""The random draws of loading a data set: its split, and a smaller training part."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from pydantic import Field, model_validator
from scipy import sparse

from rarenodes.datasets.stratification import stratified_parts
from rarenodes.randomness import derived_seed, numpy_stream
from rarenodes.settings import Settings


class SplitOptions(Settings):
    """Shares of the examples held out at random; the rest is the training part."""

    valid_fraction: float = Field(0.15, gt=0, lt=1)
    test_fraction: float = Field(0.25, gt=0, lt=1)

    @model_validator(mode="after")
    def _leave_something_to_train_on(self):
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"valid_fraction {self.valid_fraction} and test_fraction {self.test_fraction} "
                "leave nothing to train on; their sum must be below 1"
            )
        return self


class StratifiedOptions(SplitOptions):
    """Shares held out at random, or so that every node has its share of each part.

    Attributes:
        stratified: whether nodes are looked at, see `stratification`. Left out of descriptions where
            it is not asked for, so that data sets that were prepared before it existed keep their
            cards.

    """

    stratified: bool = Field(False, exclude_if=lambda stratified: not stratified)


@dataclass(frozen=True)
class Sampling:
    """Named streams of one source, so that no draw depends on another.

    Attributes:
        source: name of the source; two sources with one seed are split independently.
        seed: the study's seed.
        train_fraction: share of the training examples to keep, in (0, 1].

    """

    source: str
    seed: int = 0
    train_fraction: float = 1.0

    def __post_init__(self):
        if not 0 < self.train_fraction <= 1:
            raise ValueError(
                f"{self.source}: train_fraction is {self.train_fraction}; expected above 0, at most 1"
            )

    def stream(self, purpose: str) -> np.random.Generator:
        """Generator for one purpose, such as `"split"`."""
        return numpy_stream(self.seed, "dataset", self.source, purpose)

    def sklearn_seed(self, purpose: str) -> int:
        """Seed for one purpose in the 32 bits that scikit-learn takes."""
        return derived_seed(self.seed, "dataset", self.source, purpose) % 2**32

    def split(self, examples: int, options: SplitOptions) -> dict[str, np.ndarray]:
        """Rows of `train` (limited to `train_fraction`), `valid` and `test`, each sorted.

        `valid` and `test` do not depend on `train_fraction`.

        Raises:
            ValueError: too few examples for three parts.

        """
        order = self.stream("split").permutation(examples)
        test = round(options.test_fraction * examples)
        valid = round(options.valid_fraction * examples)
        parts = {"test": order[:test], "valid": order[test : test + valid]}
        parts["train"] = order[test + valid :]
        return self._checked(parts, examples)

    def split_examples(
        self, targets: sparse.csr_array, options: StratifiedOptions
    ) -> dict[str, np.ndarray]:
        """Parts as of `split`; where it is asked for, with every node's share in each.

        Stratified, every node has something to learn from (before `train_fraction`), and the
        held-out parts may be a little smaller than their shares.

        Args:
            targets: `[examples, nodes]`, sparse 0/1, ancestor-closed.
            options: the shares, and whether to stratify.

        Raises:
            ValueError: a part is empty.

        """
        examples = targets.shape[0]
        if not options.stratified:
            return self.split(examples, options)
        held_out = {"test": options.test_fraction, "valid": options.valid_fraction}
        shares = {"train": 1 - sum(held_out.values()), **held_out}
        return self._checked(stratified_parts(targets, shares, self.stream("split")), examples)

    def split_groups(
        self,
        groups: Int[np.ndarray, " examples"],
        targets: sparse.csr_array,
        options: SplitOptions,
        always_train: Bool[np.ndarray, " examples"] | None = None,
    ) -> dict[str, np.ndarray]:
        """Parts as of `split`, with every group on one side and something to learn of every node.

        Groups come up in random order and are held out, for `test` first and then for `valid`,
        where they fit into what is left of the part's share and where every node keeps a training
        example. So a node with a single group is never tested, and the held-out parts may be a
        little smaller than their shares.

        Args:
            groups: `[examples]`, the group of each, from 0.
            targets: `[examples, nodes]`, sparse 0/1.
            options: the shares.
            always_train: `[examples]`, examples whose groups are never held out.

        Raises:
            ValueError: a part is empty.

        """
        examples = len(groups)
        members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
        left = np.asarray(targets.sum(axis=0, dtype=np.int64)).ravel()
        fixed = set() if always_train is None else set(groups[always_train].tolist())
        waiting = [g for g in self.stream("split").permutation(len(members)) if g not in fixed]
        parts = {}
        for part, share in (("test", options.test_fraction), ("valid", options.valid_fraction)):
            room = round(share * examples)
            rows: list[int] = []
            passed_over = []
            for group in waiting:
                # The nodes of the group's examples, one entry for each example and node.
                nodes, lost = np.unique(targets[members[group]].indices, return_counts=True)
                if len(members[group]) <= room - len(rows) and (left[nodes] > lost).all():
                    rows.extend(members[group])
                    left[nodes] -= lost
                else:
                    passed_over.append(group)
            parts[part], waiting = np.array(rows, dtype=np.int64), passed_over
        held_out = np.concatenate(list(parts.values()))
        parts["train"] = np.setdiff1d(np.arange(examples), held_out)
        return self._checked(parts, examples)

    def hold_out(
        self, train: Int[np.ndarray, " rows"], fraction: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Part `train` at random into what stays and the share held out, both sorted."""
        order = self.stream("hold out").permutation(train)
        held_out = max(1, round(fraction * len(train)))
        return np.sort(order[held_out:]), np.sort(order[:held_out])

    def limit(self, split: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The split with `train_fraction` of its training rows, at least one.

        A smaller fraction keeps a subset of the rows of a larger one.
        """
        if self.train_fraction == 1:
            return dict(split)
        order = self.stream("limit").permutation(split["train"])
        keep = max(1, round(self.train_fraction * len(order)))
        return {**split, "train": np.sort(order[:keep])}

    def _checked(self, parts: Mapping[str, np.ndarray], examples: int) -> dict[str, np.ndarray]:
        for part, rows in parts.items():
            if not len(rows):
                raise ValueError(
                    f"{self.source}: the part {part!r} of {examples} examples is empty; "
                    "expected at least one in each of train, valid and test: "
                    "use more data or other fractions"
                )
        return self.limit({part: np.sort(rows) for part, rows in parts.items()})
