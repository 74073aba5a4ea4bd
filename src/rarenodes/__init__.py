"""Detecting rare nodes in hierarchical multi-label classification."""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Threads that wait for each other spin only briefly before they sleep. With the OpenMP runtime's own
# setting, a training on a machine shared with other work can take minutes instead of seconds. Read
# when PyTorch is loaded, hence here.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if TYPE_CHECKING:
    from rarenodes.datasets import Dataset, load_dataset
    from rarenodes.datasets.arff import read_clus_arff
    from rarenodes.loss.coherent import Focal, RareNodeLoss, coherent_bce
    from rarenodes.loss.conditional import (
        ConditionalLoss,
        conditional_bce,
        conditional_log_probabilities,
    )
    from rarenodes.loss.hierarchy import Hierarchy
    from rarenodes.loss.uncertainty import uncertainty
    from rarenodes.loss.weighting import node_weights, released_counts
    from rarenodes.models.estimator import RareNodeClassifier
    from rarenodes.models.model import Model
    from rarenodes.scores.metrics import score_nodes

# Public names and the modules they live in; imported when first used, so that `import rarenodes`
# costs nothing.
_HOMES = {
    "ConditionalLoss": "loss.conditional",
    "Dataset": "datasets",
    "Focal": "loss.coherent",
    "Hierarchy": "loss.hierarchy",
    "Model": "models.model",
    "RareNodeClassifier": "models.estimator",
    "RareNodeLoss": "loss.coherent",
    "coherent_bce": "loss.coherent",
    "conditional_bce": "loss.conditional",
    "conditional_log_probabilities": "loss.conditional",
    "load_dataset": "datasets",
    "node_weights": "loss.weighting",
    "read_clus_arff": "datasets.arff",
    "released_counts": "loss.weighting",
    "score_nodes": "scores.metrics",
    "uncertainty": "loss.uncertainty",
}

__all__ = [
    "ConditionalLoss",
    "Dataset",
    "Focal",
    "Hierarchy",
    "Model",
    "RareNodeClassifier",
    "RareNodeLoss",
    "coherent_bce",
    "conditional_bce",
    "conditional_log_probabilities",
    "load_dataset",
    "node_weights",
    "read_clus_arff",
    "released_counts",
    "score_nodes",
    "uncertainty",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
