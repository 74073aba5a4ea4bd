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
class Trees:
    """Binary trees as arrays, one tree's branchings and leaves after the other's: what can be stored.

    Attributes:
        feature: `[places]`, which feature is asked at a branching.
        threshold: `[places]`, float64; an example goes left where its feature is at most that.
        left: `[places]`, where that leads; −1 at a leaf.
        right: `[places]`, where the others go; −1 at a leaf.
        roots: `[trees]`, where each tree begins.
        width: number of features of an example.

    """

    feature: Int[np.ndarray, " places"]
    threshold: Float[np.ndarray, " places"]
    left: Int[np.ndarray, " places"]
    right: Int[np.ndarray, " places"]
    roots: Int[np.ndarray, " trees"]
    width: int

    def leaves(
        self, features: Float[np.ndarray, "examples features"]
    ) -> Int[np.ndarray, "examples trees"]:
        """The leaf that each example falls into in each tree.

        Args:
            features: `[examples, features]`, float32, as those the trees were grown on.

        """
        # Compared in float32, as scikit-learn grows trees.
        features = np.asarray(features, dtype=np.float32)
        at = np.tile(self.roots, len(features))
        example = np.repeat(np.arange(len(features)), len(self.roots))
        under_way = np.flatnonzero(self.left[at] >= 0)
        while len(under_way):
            here = at[under_way]
            asked = features[example[under_way], self.feature[here]]
            goes_left = asked <= self.threshold[here]
            at[under_way] = np.where(goes_left, self.left[here], self.right[here])
            under_way = under_way[self.left[at[under_way]] >= 0]
        return at.reshape(len(features), len(self.roots))


@dataclass(frozen=True)
class Forest:
    """A fitted forest; from `fit_forest`.

    Attributes:
        trees: which tell the leaves an example falls into.
        shares: `[places, nodes]`, shares of positives in the leaves of all trees; empty rows for
            branchings.
        hierarchy: the nodes.

    """

    trees: Trees = field(repr=False)
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
        leaves = self.trees.leaves(features)
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
    rows = np.concatenate([dataset.split[part] for part in fit_on])
    features, targets = dataset.features[rows], dataset.targets[rows].astype(np.float64)
    unknown = None if dataset.unknown is None else dataset.unknown[rows].astype(np.float64)
    grown = grow(features, targets, settings, seed)
    trees = trees_of(grown)
    drawn = np.stack(
        [np.bincount(sample, minlength=len(rows)) for sample in grown.estimators_samples_], axis=1
    )
    shares = _leaf_shares(trees, drawn, features, targets, unknown)
    return Forest(trees, shares, dataset.hierarchy)


def grow(
    features: Float[np.ndarray, "examples features"],
    targets: sparse.csr_array,
    settings: ForestSettings,
    seed: int,
) -> Any:
    """The forest of scikit-learn whose trees `fit_forest` takes."""
    # scikit-learn takes two seconds to import, and few need it.
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        settings.trees,
        min_samples_leaf=settings.min_leaf,
        max_features=settings.max_features,
        random_state=seed,
        n_jobs=1,
    )
    return forest.fit(
        features, _projected(targets, settings.components, np.random.default_rng(seed))
    )


def trees_of(grown: Any) -> Trees:
    """The trees of a forest of scikit-learn."""
    trees = [tree.tree_ for tree in grown.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])

    def joined(name: str, kind: type) -> np.ndarray:
        return np.concatenate([getattr(tree, name) for tree in trees]).astype(kind)

    begins = np.repeat(roots, [tree.node_count for tree in trees])
    left, right = (joined(f"children_{side}", np.int64) for side in ("left", "right"))
    leaf = left < 0
    return Trees(
        feature=np.where(leaf, 0, joined("feature", np.int64)),
        threshold=joined("threshold", np.float64),
        left=np.where(leaf, -1, left + begins),
        right=np.where(leaf, -1, right + begins),
        roots=roots,
        width=grown.n_features_in_,
    )


def _projected(
    targets: sparse.csr_array, components: int, rng: np.random.Generator
) -> Float[np.ndarray, "examples components"]:
    """Target vectors, as they are or at lower dimension with the same distances in expectation."""
    nodes = targets.shape[1]
    if nodes <= components:
        return targets.toarray()
    return targets @ rng.normal(scale=components**-0.5, size=(nodes, components))


def _leaf_shares(
    trees: Trees,
    drawn: Int[np.ndarray, "examples trees"],
    features: Float[np.ndarray, "examples features"],
    targets: sparse.csr_array,
    unknown: sparse.csr_array | None,
) -> sparse.csr_array:
    """`[places, nodes]`: mean target vector of the examples each tree drew into each leaf.

    How often a tree drew an example is `drawn`. Of a node the mean is over the examples that it is known of.
    """
    examples = len(features)
    leaves = trees.leaves(features)
    of_example = np.repeat(np.arange(examples), leaves.shape[1])
    members = sparse.csr_array(
        (drawn.ravel().astype(np.float64), (leaves.ravel(), of_example)),
        shape=(len(trees.left), examples),
    )
    size = np.maximum(members.sum(axis=1), 1)
    shares = sparse.csr_array(sparse.diags_array(1 / size) @ members @ targets)
    if unknown is None:
        return shares
    left_out = sparse.csr_array(sparse.diags_array(1 / size) @ members @ unknown)
    found = shares.tocoo()
    known = 1 - np.asarray(left_out[found.row, found.col]).ravel()
    return sparse.csr_array((found.data / known, (found.row, found.col)), shape=shares.shape)
