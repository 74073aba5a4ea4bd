"""A classifier with scikit-learn's conventions, for pipelines, grid searches and cross-validation."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from rarenodes.datasets.columns import PlainFeatures
from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.files import short
from rarenodes.datasets.targets import closed_targets, unknown_below
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.models.fitting import fit_predictor
from rarenodes.models.labels import Labels, labels_of
from rarenodes.models.run import Run
from rarenodes.scores.metrics import average_precision, macro
from rarenodes.scores.unknown import silenced
from rarenodes.settings import read_settings
from rarenodes.training.loop import Budget, Streams
from rarenodes.training.variants import VariantSettings

# What is trained where no variant is given: nothing random, and fast.
DEFAULT_VARIANT = {"linear": {"kind": "conditional"}}
# The name that is put above labels that come without a hierarchy.
ROOT = "root"


class RareNodeClassifier(ClassifierMixin, BaseEstimator):
    """Hierarchical multi-label classification as a scikit-learn estimator.

    Trains one variant, as the studies do, on a matrix of features, which are used as they come: put
    `StandardScaler`, a vectoriser and the like before it in a pipeline. Always multi-label: `predict`
    and `predict_proba` have a column a node, also where each example was given one label. So it passes
    scikit-learn's `check_estimator` but for `check_classifiers_train` and
    `check_classifiers_one_label`, which expect one label an example of `predict`; a forest and neighbours,
    which may say 0, fail the one that expects more of `predict_proba`.

    Labels (`y`) are one of

    - for every example a list of names of nodes (ancestors may be given or left out), or one name;
    - a pandas table of 0 and 1 whose columns are named like the nodes they stand for;
    - an indicator matrix `[examples, nodes]` of 0 and 1: an array, scipy sparse, or rows of numbers
      of one length, with the columns of `Hierarchy(edges).nodes`. Ancestors are added. A matrix of
      one column is one label an example.

    Args:
        hierarchy: pairs (child, parent), or a `Hierarchy`. None: all labels stand side by side.
        variant: how to train, an entry of `variants.yaml` without `about`, such as
            `{"constraint": "conditional"}`; by default conditional logistic regressions.
        threshold: a node is predicted where its probability lies above; in [0, 1].
        unknown_below: whether a label that stops half-way says nothing about the nodes below it;
            `fit` and `score` then leave these pairs out. Otherwise the example is negative in them.
        epochs: of networks, as are all that follow but the last; see `training.loop.Budget`.
        batch_size: examples a step.
        learning_rate: of Adam.
        weight_decay: of Adam.
        hidden: units of every hidden layer.
        layers: hidden layers.
        dropout: probability of dropping a hidden unit, in [0, 1).
        members: networks of the ensemble.
        device: `auto`, `cpu` or `cuda`.
        random_state: seed of weights, batches and resampling: the same number, the same model.

    Attributes:
        classes_: names of the nodes that are the columns of `predict`: the hierarchy's, in its order;
            without a hierarchy the sorted labels, or the numbers of the columns.
        hierarchy_: the nodes; without a hierarchy the labels beneath a `root`.
        predictor_: what was trained.
        n_features_in_: features seen in `fit`.

    """

    # As scikit-learn has it, anything may be set, and `fit` says what is wrong.
    @no_type_check
    def __init__(
        self,
        hierarchy: Iterable[tuple[str, str]] | Hierarchy | None = None,
        *,
        variant: Mapping[str, Any] | None = None,
        threshold: float = 0.5,
        unknown_below: bool = False,
        epochs: int = 50,
        batch_size: int = 128,
        learning_rate: float = 0.001,
        weight_decay: float = 1e-5,
        hidden: int = 256,
        layers: int = 1,
        dropout: float = 0.5,
        members: int = 5,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ):
        self.hierarchy = hierarchy
        self.variant = variant
        self.threshold = threshold
        self.unknown_below = unknown_below
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.hidden = hidden
        self.layers = layers
        self.dropout = dropout
        self.members = members
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self):
        """Say to scikit-learn that labels are several, and needed."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        tags.target_tags.two_d_labels = True
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any) -> "RareNodeClassifier":
        """Train on all examples.

        Args:
            X: `[examples, features]`, finite numbers.
            y: labels, see above; at least one node must be positive somewhere.

        Raises:
            ValueError: labels that are no nodes or fit no example, numbers that are not finite, or
                settings that cannot be.

        """
        variant = DEFAULT_VARIANT if self.variant is None else self.variant
        settings = read_settings(VariantSettings, {"about": "", **variant}, "variant")
        budget = read_settings(Budget, {**self._training(), **settings.training}, "training")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected a number from 0 to 1, found {self.threshold!r}")
        features = validate_data(self, X, dtype=np.float32)
        labels = self._checked(features, y)
        self.hierarchy_, self.classes_ = self._nodes(labels)
        names = [str(name) for name in self.classes_]
        self._columns = np.array(self.hierarchy_.indices(names))
        dataset = self._dataset(features, self._targets(labels))
        streams = Streams(self._seed(), "estimator", "variant", 0)
        self.predictor_ = fit_predictor(dataset, Run(settings, budget, streams))
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "examples nodes"]:
        """Coherent probabilities of the nodes in `classes_`: none above that of a node's parent.

        Args:
            X: `[examples, features]`, as in `fit`.

        Returns:
            `[examples, nodes]`, float32, in [0, 1]. Rows do not sum to 1: nodes are no alternatives.

        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=np.float32, reset=False)
        batches = self.predictor_.predictions(np.ascontiguousarray(features))
        return np.concatenate(list(batches))[:, self._columns]

    def predict(self, X: Any) -> Int[np.ndarray, "examples nodes"]:
        """Whether each node in `classes_` is predicted: 1 where its probability is above `threshold`.

        Args:
            X: `[examples, features]`, as in `fit`.

        Returns:
            `[examples, nodes]` of 0 and 1; with a node its ancestors are predicted.

        """
        return (self.predict_proba(X) > self.threshold).astype(np.int64)

    def score(self, X: Any, y: Any) -> float:
        """Macro average precision: the mean over nodes below the roots that have positives in `y`.

        Args:
            X: `[examples, features]`, as in `fit`.
            y: labels, as in `fit`.

        Returns:
            In [0, 1]; NaN where no such node has positives.

        """
        probabilities = self.predict_proba(X)
        labels = self._checked(probabilities, y)
        every = self._targets(labels)
        if self.unknown_below:
            unknown = unknown_below(every, self.hierarchy_)[:, self._columns]
            probabilities = silenced(probabilities, unknown)
        targets = every[:, self._columns].toarray()
        scored = ~np.isin(self.hierarchy_.nodes, self.hierarchy_.roots)[self._columns]
        targets, probabilities = targets[:, scored], probabilities[:, scored]
        support = targets.sum(axis=0, dtype=np.int64)
        return macro(average_precision(probabilities, targets), support, "with_positives")

    def _training(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in Budget.model_fields if hasattr(self, name)}
        # What a search hands over may be a NumPy number, which strict settings refuse.
        return {k: v.item() if isinstance(v, np.generic) else v for k, v in given.items()}

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    def _checked(self, features: np.ndarray, y: Any) -> Labels:
        """Labels in one of two forms, one for every example."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        labels = labels_of(y)
        found = len(labels) if isinstance(labels, list) else labels.shape[0]
        if found != len(features):
            raise ValueError(f"y: found labels of {found} examples, expected {len(features)}")
        return labels

    def _nodes(self, labels: Labels) -> tuple[Hierarchy, np.ndarray]:
        """The hierarchy, and the names of the nodes that have a column."""
        if self.hierarchy is not None:
            given = self.hierarchy
            hierarchy = given if isinstance(given, Hierarchy) else Hierarchy(given)
            return hierarchy, np.array(hierarchy.nodes)
        if isinstance(labels, list):
            classes = np.unique([name for names in labels for name in names])
        else:
            classes = np.arange(labels.shape[1])
        names = [str(name) for name in classes]
        if not names or ROOT in names:
            found = f"the label {ROOT!r}" if names else "no label"
            raise ValueError(
                f"y: found {found}, expected labels of other names: give the hierarchy, or others"
            )
        return Hierarchy([(name, ROOT) for name in names]), classes

    def _targets(self, labels: Labels) -> sparse.csr_array:
        """Ancestor-closed targets of all nodes of the hierarchy."""
        if isinstance(labels, list):
            names = [[str(name) for name in some] for some in labels]
            for row, some in enumerate(names):
                for name in some:
                    if name not in self.hierarchy_.index:
                        raise _unknown(row, name, self.hierarchy_)
        else:
            if labels.shape[1] != len(self.classes_):
                raise ValueError(
                    f"y: found an indicator matrix of {labels.shape[1]} columns, expected "
                    f"{len(self.classes_)}, one for each node in classes_"
                )
            parts = np.split(labels.indices, labels.indptr[1:-1])
            names = [[str(self.classes_[column]) for column in part] for part in parts]
        return closed_targets(names, self.hierarchy_)

    def _dataset(self, features: np.ndarray, targets: sparse.csr_array) -> Dataset:
        nothing = np.empty(0, dtype=np.int64)
        return Dataset(
            name="estimator",
            features=features,
            targets=targets,
            hierarchy=self.hierarchy_,
            split={"train": np.arange(len(features)), "valid": nothing, "test": nothing},
            evaluated=~np.isin(self.hierarchy_.nodes, self.hierarchy_.roots),
            card={},
            unknown=unknown_below(targets, self.hierarchy_) if self.unknown_below else None,
            transformation=PlainFeatures(features.shape[1]),
        )


def _unknown(row: int, name: str, hierarchy: Hierarchy) -> ValueError:
    near = difflib.get_close_matches(name[:100], hierarchy.nodes[:1000], n=1, cutoff=0.5)
    mend = f"did you mean {near[0]!r}?" if near else "correct it, or add an edge to the hierarchy"
    return ValueError(f"y, row {row}: unknown node {short(name)}; {mend}")
