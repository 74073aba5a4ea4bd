"""Variants: one entry of `params.yaml` each, and the loss it stands for."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from rarenodes.datasets.dataset import Dataset
from rarenodes.losses import Focal, RareNodeLoss
from rarenodes.settings import Settings
from rarenodes.uncertainty import KINDS
from rarenodes.weighting import node_weights, released_counts


class NodeWeightSettings(Settings):
    """Node weights by rarity.

    Attributes:
        mode: `class-wise` (`K` is the number of nodes) or `binary` (`K` = 2).
        target: the class of a node that is weighted; the other class counts 1.
        floor: `ω`, the weight of the most frequent node.
        counts: positive examples of a node as they are, or counted as the released code does.

    """

    mode: Literal["class-wise", "binary"]
    target: Literal["positives", "negatives", "both"] = "positives"
    floor: float = Field(default=0.25, gt=0)
    counts: Literal["examples", "released"] = "examples"


class FocalSettings(Settings):
    """Focal weight `floor + u^power` from ensemble uncertainty `u`."""

    uncertainty: Literal[tuple(KINDS)]
    power: float = Field(default=1.0, gt=0)
    floor: float = Field(default=0.25, ge=0)


class VariantSettings(Settings):
    """One way to train: the loss and what is done about imbalance.

    Attributes:
        about: one line for readers, with the source.
        constraint: whether the maximum constraint is part of the loss or used only to predict.
        weights: node weights, or none.
        focal: the focal term, or none.
        training: training settings that differ from the study's for this variant.

    """

    about: str
    constraint: Literal["training", "prediction"] = "training"
    weights: NodeWeightSettings | None = None
    focal: FocalSettings | None = None
    training: dict[str, Any] = Field(default_factory=dict)


def build_loss(
    variant: VariantSettings, dataset: Dataset, fit_on: Sequence[str] = ("train",)
) -> RareNodeLoss:
    """The loss that a variant's settings stand for.

    Args:
        variant: the settings.
        dataset: gives the hierarchy, the evaluated nodes and the counts behind node weights.
        fit_on: the parts of the split that are trained on; node weights count their examples.

    """
    positive = negative = None
    if variant.weights is not None:
        weight = _weights(variant.weights, dataset, fit_on)
        positive = weight if variant.weights.target in ("positives", "both") else None
        negative = weight if variant.weights.target in ("negatives", "both") else None
    focal = None if variant.focal is None else Focal(**variant.focal.model_dump())
    return RareNodeLoss(
        dataset.hierarchy,
        positive,
        negative,
        focal,
        torch.from_numpy(dataset.evaluated),
        coherent=variant.constraint == "training",
    )


def _weights(settings: NodeWeightSettings, dataset: Dataset, fit_on: Sequence[str]) -> torch.Tensor:
    rows = np.concatenate([dataset.split[part] for part in fit_on])
    targets = torch.from_numpy(dataset.targets[rows].toarray())
    if settings.counts == "released":
        counts = released_counts(targets, dataset.hierarchy)
    else:
        counts = targets.sum(dim=0)
    return node_weights(counts, len(rows), settings.mode, settings.floor).float()
