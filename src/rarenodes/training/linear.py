"""A simple and strong baseline: a logistic regression a node, on all examples or its parents'."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from scipy import sparse
from scipy.special import log_expit
from tqdm import tqdm

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.topdown import SUM, TopDownPlan, top_down
from rarenodes.settings import Settings
from rarenodes.training.logistic import Features, fit_logistic

# Fits that take no longer show no bar.
SECONDS_BEFORE_BAR = 2.0
# Examples × nodes at once when predicting.
BLOCK = 2**22


class LinearSettings(Settings):
    """How logistic regressions are fitted.

    Attributes:
        kind: each node `flat`, on all examples, with the maximum constraint to predict; or
            `conditional`, on the examples whose parents are all positive, with the product down
            the paths.
        penalty: of the squared weights, against losses that are summed over examples; the inverse
            of scikit-learn's `C`. It suits the features' scale, so it is to be tuned.

    """

    kind: Literal["flat", "conditional"] = "conditional"
    penalty: float = Field(default=1.0, gt=0)


@dataclass(frozen=True)
class Linear:
    """Fitted logistic regressions; from `fit_linear`.

    Attributes:
        weights: `[features, nodes]`, float32; 0 for nodes that are constant.
        intercept: `[nodes]`, float32.
        conditional: whether logits are of a node given its parents.
        hierarchy: the nodes.

    """

    weights: Float[np.ndarray, "features nodes"] = field(repr=False)
    intercept: Float[np.ndarray, " nodes"] = field(repr=False)
    conditional: bool
    hierarchy: Hierarchy

    def predict(self, features: Features) -> Float[np.ndarray, "examples nodes"]:
        """Coherent probabilities.

        Conditional: `log p_j = log sigmoid(z_j) + min over parents of log p_parent`; the minimum,
        not the product over several parents, so that no evidence counts twice. Flat: the largest
        probability of a node and its descendants.

        Args:
            features: `[examples, features]`, as those the regressions were fitted on.

        Returns:
            `[examples, nodes]` in [0, 1], float32, of all nodes of the hierarchy.

        """
        nodes = len(self.hierarchy)
        predicted = np.empty((features.shape[0], nodes), dtype=np.float32)
        rows = max(1, BLOCK // nodes)
        for start in range(0, len(predicted), rows):
            block = features[start : start + rows]
            logits = np.asarray(block @ self.weights) + self.intercept
            predicted[start : start + rows] = self._probabilities(logits)
        return predicted

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        log = log_expit(logits.astype(np.float64))
        if self.conditional:
            plan = TopDownPlan.of(self.hierarchy)
            log = top_down(torch.from_numpy(log), plan, SUM).numpy()
        probabilities = torch.from_numpy(np.exp(log).astype(np.float32))
        return self.hierarchy.max_over_descendants(probabilities).numpy()


def fit_linear(
    dataset: Dataset,
    settings: LinearSettings,
    fit_on: Sequence[str],
    features: Features | None = None,
) -> Linear:
    """Fit a logistic regression to each node; nothing is random.

    A conditional regression sees a rare node among its siblings' examples alone, where it is less
    rare: its share of positives rises from `n_j / N` to `n_j / n_parent`, `n_parent` being the
    examples in which all its parents are positive. Nodes of the same parents are fitted together.

    A node without positives (or without negatives) among the examples it is fitted on gets the
    constant logit `log odds of (n_j + ½) / (n_parent + 1)`, `N` in place of `n_parent` where flat.
    With the product down the paths such a node inherits its parents' ranking. Examples of which a
    node is unknown are left out of its regression.

    Args:
        dataset: features, targets and split.
        settings: flat or conditional, and the penalty.
        fit_on: parts of the split to learn from.
        features: `[examples, features]`, dense or scipy sparse, a row for each example of the data
            set, in place of its own features.

    Raises:
        ValueError: features with another number of rows than the data set has examples.

    Source:
        A local classifier per node: Silla and Freitas, *A survey of hierarchical classification
        across different application domains*, 2011; the product of conditional probabilities:
        Cesa-Bianchi, Gentile and Zaniboni, *Incremental algorithms for hierarchical
        classification*, JMLR 7 (2006).

    """
    features = features_of(dataset, features)
    rows = np.concatenate([dataset.split[part] for part in fit_on])
    inputs, targets = features[rows], sparse.csc_array(dataset.targets[rows], dtype=np.float64)
    unknown = None if dataset.unknown is None else sparse.csc_array(dataset.unknown[rows])
    nodes = len(dataset.hierarchy)
    weights = np.zeros((inputs.shape[1], nodes), dtype=np.float32)
    intercept = np.zeros(nodes, dtype=np.float32)
    groups = _groups(targets, dataset.hierarchy, settings.kind)
    about = f"{dataset.name} logistic regressions"
    with tqdm(total=nodes, desc=about, unit="node", disable=None, delay=SECONDS_BEFORE_BAR) as bar:
        for examples, group in groups if unknown is None else _where_known(groups, unknown):
            labels = targets[:, group] if examples is None else targets[:, group].tocsr()[examples]
            count = labels.shape[0]
            positives = np.asarray(labels.sum(axis=0)).ravel()
            intercept[group] = np.log(positives + 0.5) - np.log(count - positives + 0.5)
            varies = (positives > 0) & (positives < count)
            bar.update(int((~varies).sum()))
            if not varies.any():
                continue
            of_group = inputs if examples is None else inputs[examples]
            fitted = fit_logistic(
                of_group, sparse.csr_array(labels[:, varies]), settings.penalty, bar.update
            )
            weights[:, group[varies]], intercept[group[varies]] = fitted
    return Linear(weights, intercept, settings.kind == "conditional", dataset.hierarchy)


def features_of(dataset: Dataset, features: Features | None) -> Features:
    """The features given in place of the data set's, checked, or the data set's own.

    Raises:
        ValueError: features with another number of rows than the data set has examples.

    """
    if features is None:
        return dataset.features
    if features.shape[0] != len(dataset.features):
        raise ValueError(
            f"{dataset.name}: features have {features.shape[0]} rows, expected one for each of the "
            f"{len(dataset.features)} examples"
        )
    return sparse.csr_array(features) if sparse.issparse(features) else features


def _groups(
    targets: sparse.csc_array, hierarchy: Hierarchy, kind: str
) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
    """Nodes that are fitted on the same examples, and these examples; None for all."""
    if kind == "flat":
        yield None, np.arange(len(hierarchy))
        return
    siblings: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for node, parents in enumerate(hierarchy.parents):
        siblings[parents].append(node)
    for parents, group in siblings.items():
        if not parents:
            yield None, np.array(group)
            continue
        positive = targets[:, list(parents)].sum(axis=1)
        yield np.flatnonzero(positive == len(parents)), np.array(group)


def _where_known(
    groups: Iterator[tuple[np.ndarray | None, np.ndarray]], unknown: sparse.csc_array
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups split into nodes that are known of the same examples, without the others."""
    examples, _ = unknown.shape
    for rows, group in groups:
        rows = np.arange(examples) if rows is None else rows
        by_known: dict[bytes, list[int]] = defaultdict(list)
        kept: dict[bytes, np.ndarray] = {}
        for node in group.tolist():
            column = unknown.indices[unknown.indptr[node] : unknown.indptr[node + 1]]
            known = np.setdiff1d(rows, column, assume_unique=True)
            by_known[known.tobytes()].append(node)
            kept[known.tobytes()] = known
        for key, nodes in by_known.items():
            yield kept[key], np.array(nodes)
