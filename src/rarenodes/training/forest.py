"""A classic floor: a random forest of predictive clustering trees."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.settings import Settings


class ForestSettings(Settings):
    """How a forest is grown; the defaults were chosen on the validation part of cellcycle_FUN.

    Attributes:
        trees: how many, each on a bootstrap sample of the examples.
        min_leaf: least training examples in a leaf.
        max_features: share of the features among which a split is sought, drawn anew for each.
        components: splits are sought on target vectors projected to so many numbers, where there
            are more nodes than that.

    """

    trees: int = Field(default=100, gt=0)
    min_leaf: int = Field(default=5, gt=0)
    max_features: float = Field(default=0.25, gt=0, le=1)
    components: int = Field(default=512, gt=0)


@dataclass(frozen=True)
class Forest:
    """A fitted forest; from `fit_forest`.

    Attributes:
        trees: the regressor of scikit-learn, which tells the leaf an example falls into.
        shares: `[leaves, nodes]`, shares of positives in the leaves of all trees, one below the
            other; a row for each of a tree's nodes, empty for its inner ones.
        hierarchy: the nodes.

    """

    trees: Any = field(repr=False)
    shares: sparse.csr_array = field(repr=False)
    hierarchy: Hierarchy

    def predict(
        self, features: Float[np.ndarray, "examples features"]
    ) -> Float[np.ndarray, "examples nodes"]:
        """Coherent probabilities: the mean over trees of the shares of positives in a leaf.

        Args:
            features: `[examples, features]`, as those the forest was fitted on.

        Returns:
            `[examples, nodes]` in [0, 1], float32, of all nodes of the hierarchy.

        """
        leaves = _leaves(self.trees, features)
        examples, trees = leaves.shape
        chosen = sparse.csr_array(
            (np.ones(leaves.size), leaves.ravel(), np.arange(examples + 1) * trees),
            shape=(examples, self.shares.shape[0]),
        )
        mean = torch.from_numpy((chosen @ self.shares).toarray() / trees).float()
        # Means of coherent targets are coherent, but for sums of many, which may differ in the last
        # digit, and for nodes that are known of different examples.
        return self.hierarchy.max_over_descendants(mean.clamp(0, 1)).numpy()


def fit_forest(
    dataset: Dataset, settings: ForestSettings, fit_on: Sequence[str], seed: int
) -> Forest:
    """Grow a random forest whose trees predict all nodes at once.

    A split is the one that reduces the variance of the target vectors most: the mean squared
    distance of the examples' 0/1 vectors from their mean, all nodes counting alike. A leaf predicts
    the mean vector of its training examples, which is coherent because each of theirs is. Splits
    take unknown pairs of an example and a node for negative; leaves leave them out. This is
    a predictive clustering tree, with scikit-learn's trees instead of those of CLUS: there, nodes
    count less the deeper they lie, and splits know missing values, which here were filled in
    before.

    Where there are thousands of nodes, variances of all would take minutes a forest. Splits are
    then sought on a random projection of the target vectors, which keeps distances in expectation
    and has the same variances up to a few per cent; leaves predict from the vectors themselves. On
    cellcycle_GO that takes an eighth of the time and costs 0.002 of micro AU(PRC).

    Args:
        dataset: features, targets and split.
        settings: size of the forest and of its trees.
        fit_on: parts of the split to learn from.
        seed: of bootstrap samples, features tried and projection; below 2³².

    Source:
        Vens et al., *Decision trees for hierarchical multi-label classification*, Machine Learning
        73 (2008); Kocev et al., *Tree ensembles for predicting structured outputs*, Pattern
        Recognition 46 (2013). The projection: Joly, Geurts, Wehenkel, *Random forests with random
        projections of the output space for high dimensional multi-label classification*, ECML PKDD
        2014.

    """
    # scikit-learn takes two seconds to import, and few need it.
    from sklearn.ensemble import RandomForestRegressor

    rows = np.concatenate([dataset.split[part] for part in fit_on])
    features, targets = dataset.features[rows], dataset.targets[rows].astype(np.float64)
    trees = RandomForestRegressor(
        settings.trees,
        min_samples_leaf=settings.min_leaf,
        max_features=settings.max_features,
        random_state=seed,
        n_jobs=1,
    )
    trees.fit(features, _projected(targets, settings.components, np.random.default_rng(seed)))
    unknown = None if dataset.unknown is None else dataset.unknown[rows].astype(np.float64)
    return Forest(trees, _leaf_shares(trees, features, targets, unknown), dataset.hierarchy)


def _projected(
    targets: sparse.csr_array, components: int, rng: np.random.Generator
) -> Float[np.ndarray, "examples components"]:
    """Target vectors, as they are or at lower dimension with the same distances in expectation."""
    nodes = targets.shape[1]
    if nodes <= components:
        return targets.toarray()
    return targets @ rng.normal(scale=components**-0.5, size=(nodes, components))


def _leaf_shares(
    trees: Any,
    features: Float[np.ndarray, "examples features"],
    targets: sparse.csr_array,
    unknown: sparse.csr_array | None,
) -> sparse.csr_array:
    """`[leaves, nodes]`: mean target vector of the examples each tree drew into each leaf.

    Of a node the mean is over the examples that it is known of.
    """
    examples = len(features)
    leaves = _leaves(trees, features)
    drawn = np.stack(
        [np.bincount(rows, minlength=examples) for rows in trees.estimators_samples_], axis=1
    )
    of_example = np.repeat(np.arange(examples), leaves.shape[1])
    count = sum(tree.tree_.node_count for tree in trees.estimators_)
    members = sparse.csr_array(
        (drawn.ravel().astype(np.float64), (leaves.ravel(), of_example)), shape=(count, examples)
    )
    size = np.maximum(members.sum(axis=1), 1)
    shares = sparse.csr_array(sparse.diags_array(1 / size) @ members @ targets)
    if unknown is None:
        return shares
    left_out = sparse.csr_array(sparse.diags_array(1 / size) @ members @ unknown)
    found = shares.tocoo()
    known = 1 - np.asarray(left_out[found.row, found.col]).ravel()
    return sparse.csr_array((found.data / known, (found.row, found.col)), shape=shares.shape)


def _leaves(
    trees: Any, features: Float[np.ndarray, "examples features"]
) -> Int[np.ndarray, "examples trees"]:
    """The leaf each example falls into in each tree, numbered through all trees."""
    sizes = [tree.tree_.node_count for tree in trees.estimators_]
    return trees.apply(features) + np.cumsum([0, *sizes[:-1]])
