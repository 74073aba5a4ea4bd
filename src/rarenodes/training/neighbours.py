"""A baseline without training: the labels of the nearest training examples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.settings import Settings
from rarenodes.training.linear import features_of
from rarenodes.training.logistic import Features

# Examples × (training examples + nodes) at once.
BLOCK = 2**22


class NeighbourSettings(Settings):
    """Which neighbours, and how much each counts.

    Attributes:
        count: how many.
        metric: distance of two examples: 1 − `cosine` of the angle between them, or `euclidean`.
        scale: a neighbour at distance `d` counts `exp(−d / (scale · mean))`, with the mean distance
            of the example's neighbours; the smaller, the more the nearest decide.
        exclude_within: training examples at most so far away are passed over, as near-duplicates
            that a model is not to profit from; none is where not given.

    """

    count: int = Field(default=30, gt=0)
    metric: Literal["cosine", "euclidean"] = "cosine"
    scale: float = Field(default=0.3, gt=0)
    exclude_within: float | None = Field(default=None, ge=0)


@dataclass(frozen=True)
class Neighbours:
    """Training examples to look neighbours up in; from `fit_neighbours`.

    Attributes:
        features: `[examples, features]`, float64, of length 1 where the metric is cosine.
        targets: `[examples, nodes]`, 0/1, ancestor-closed.
        unknown: `[examples, nodes]`, 0/1, see `rarenodes.datasets.dataset.Dataset`; or None.
        settings: which neighbours count, and how much.
        hierarchy: the nodes.

    """

    features: Features = field(repr=False)
    targets: sparse.csr_array = field(repr=False)
    settings: NeighbourSettings
    hierarchy: Hierarchy
    unknown: sparse.csr_array | None = field(default=None, repr=False)

    def predict(self, features: Features) -> Float[np.ndarray, "examples nodes"]:
        """Coherent probabilities: the weighted mean of the neighbours' targets.

        A mean of coherent targets is coherent. An example without neighbours, because all are
        excluded, gets the nodes' frequencies. A neighbour of which a node is unknown does not count
        for it; where none is left the node's frequency stands in. Means for nodes are then over
        different neighbours, and made coherent by the maximum over descendants.

        Args:
            features: `[examples, features]`, as those the training examples have.

        Returns:
            `[examples, nodes]` in [0, 1], float32, of all nodes of the hierarchy.

        """
        batches = list(self.predictions(features))
        if not batches:
            return np.empty((0, len(self.hierarchy)), dtype=np.float32)
        return np.concatenate(batches)

    def predictions(self, features: Features) -> Iterator[Float[np.ndarray, "batch nodes"]]:
        """What `predict` returns, batch by batch."""
        frequency = self._frequency()
        for rows, distances in self.neighbours(features):
            weights = self._weights(distances)
            examples, count = rows.shape
            chosen = sparse.csr_array(
                (weights.ravel(), rows.ravel(), np.arange(examples + 1) * count),
                shape=(examples, self.targets.shape[0]),
            )
            mean = (chosen @ self.targets).toarray()
            if self.unknown is not None:
                known = weights.sum(axis=1, keepdims=True) - (chosen @ self.unknown).toarray()
                seen = known > _ROUNDING
                mean = np.where(seen, mean / np.where(seen, known, 1), frequency)
            mean[weights.sum(axis=1) == 0] = frequency
            # Sums of many may differ in the last digit.
            coherent = torch.from_numpy(mean.astype(np.float32)).clamp(0, 1)
            yield self.hierarchy.max_over_descendants(coherent).numpy()

    def neighbours(
        self, features: Features
    ) -> Iterator[tuple[Int[np.ndarray, "batch count"], Float[np.ndarray, "batch count"]]]:
        """The nearest training examples and their distances, nearest first, batch by batch.

        Exact: every distance is computed, in blocks. Equally distant ones are in the order of the
        training examples, except that which of several at the largest distance are among the
        neighbours is arbitrary. The distance of an excluded one is infinite; where training
        examples are fewer than `count`, all are neighbours.

        Args:
            features: `[examples, features]`.

        Raises:
            ValueError: another number of features than the training examples have.

        """
        stored, dimensions = self.features.shape
        if features.shape[1] != dimensions:
            raise ValueError(
                f"examples have {features.shape[1]} features, expected the {dimensions} of the "
                "training examples"
            )
        count = min(self.settings.count, stored)
        batch = max(1, BLOCK // (stored + len(self.hierarchy)))
        for start in range(0, features.shape[0], batch):
            distances = self._distances(_prepared(features[start : start + batch], self.settings))
            if self.settings.exclude_within is not None:
                distances[distances <= self.settings.exclude_within + _ROUNDING] = np.inf
            nearest = np.sort(np.argpartition(distances, count - 1, axis=1)[:, :count], axis=1)
            found = np.take_along_axis(distances, nearest, axis=1)
            order = np.argsort(found, axis=1, kind="stable")
            yield (
                np.take_along_axis(nearest, order, axis=1),
                np.take_along_axis(found, order, axis=1),
            )

    def _frequency(self) -> Float[np.ndarray, " nodes"]:
        """Share of positives among the training examples that a node is known of."""
        if self.unknown is None:
            return np.asarray(self.targets.mean(axis=0)).ravel()
        known = self.unknown.shape[0] - self.unknown.sum(axis=0)
        return self.targets.sum(axis=0) / np.maximum(known, 1)

    def _distances(self, features: Features) -> Float[np.ndarray, "batch stored"]:
        products = features @ self.features.T
        products = products.toarray() if sparse.issparse(products) else products
        if self.settings.metric == "cosine":
            return np.maximum(1 - products, 0)
        squares = _squares(features)[:, None] + _squares(self.features) - 2 * products
        return np.sqrt(np.maximum(squares, 0))

    def _weights(
        self, distances: Float[np.ndarray, "batch count"]
    ) -> Float[np.ndarray, "batch count"]:
        """How much each neighbour counts: sums to 1 for an example that has any, else to 0."""
        found = np.isfinite(distances)
        number = np.maximum(found.sum(axis=1, keepdims=True), 1)
        mean = np.where(found, distances, 0).sum(axis=1, keepdims=True) / number
        # Distances beyond the nearest: the same ratios, and however small the scale not all vanish.
        beyond = np.where(found, distances - np.where(found[:, :1], distances[:, :1], 0), 0)
        # Where the mean is 0 all are as near as can be and count alike.
        relative = beyond / np.where(mean > 0, mean, 1)
        weights = np.where(found, np.exp(-relative / self.settings.scale), 0)
        return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1)


# Of distances that are zero but for rounding.
_ROUNDING = 1e-9


def fit_neighbours(
    dataset: Dataset,
    settings: NeighbourSettings,
    fit_on: Sequence[str],
    features: Features | None = None,
) -> Neighbours:
    """Keep the training examples, to look neighbours up in them; nothing is random.

    Args:
        dataset: features, targets and split.
        settings: which neighbours, and how much each counts.
        fit_on: parts of the split whose examples are neighbours.
        features: `[examples, features]`, dense or scipy sparse, a row for each example of the data
            set, in place of its own features: for instance the hidden layer of a trained network.

    Raises:
        ValueError: features with another number of rows than the data set has examples.

    Source:
        Cover and Hart, *Nearest neighbor pattern classification*, 1967; weights by distance:
        Dudani, *The distance-weighted k-nearest-neighbor rule*, 1976, here exponential.

    """
    features = features_of(dataset, features)
    rows = np.concatenate([dataset.split[part] for part in fit_on])
    targets = sparse.csr_array(dataset.targets[rows], dtype=np.float64)
    unknown = None
    if dataset.unknown is not None:
        unknown = sparse.csr_array(dataset.unknown[rows], dtype=np.float64)
    stored = _prepared(features[rows], settings)
    return Neighbours(stored, targets, settings, dataset.hierarchy, unknown)


def _prepared(features: Features, settings: NeighbourSettings) -> Features:
    """float64, so that distances of near-duplicates are right; a cosine's vectors of length 1."""
    sparse_ones = sparse.issparse(features)
    features = sparse.csr_array(features) if sparse_ones else np.asarray(features)
    features = features.astype(np.float64)
    if settings.metric != "cosine":
        return features
    # A vector of zeros has no direction; it stays, at distance 1 from all.
    length = np.sqrt(_squares(features))
    inverse = 1 / np.where(length > 0, length, 1)
    return sparse.diags_array(inverse) @ features if sparse_ones else features * inverse[:, None]


def _squares(features: Features) -> Float[np.ndarray, " examples"]:
    if sparse.issparse(features):
        return np.asarray(features.multiply(features).sum(axis=1)).ravel()
    return np.einsum("ef,ef->e", features, features)
