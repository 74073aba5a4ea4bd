"""How one ensemble is trained: the settings that all variants have, and on which device."""

from typing import Literal

import torch
from pydantic import Field, field_validator, model_validator

from rarenodes.settings import Settings, SettingsError
from rarenodes.training.encoders import TrainedEncoder


class Budget(Settings):
    """How one ensemble is trained.

    Attributes:
        epochs: passes over the training examples.
        batch_size: examples a step.
        learning_rate: of Adam.
        weight_decay: of Adam (L2).
        hidden: units of every hidden layer.
        layers: hidden layers.
        dropout: probability of dropping a hidden unit.
        members: members of the ensemble.
        ensemble: what members are: `networks`, each with weights of its own, or one network under
            different `dropout`, which then stays on for predicting.
        fit_on: parts of the split to train on.
        device: `auto`, `cpu` or `cuda`.
        encoder: a network under the members that turns images into their features and trains along;
            by default they are given the data set's features.

    """

    epochs: int = Field(gt=0, le=1_000_000)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    hidden: int = Field(gt=0, le=1_000_000)
    layers: int = Field(default=2, ge=0, le=1000)
    dropout: float = Field(default=0.7, ge=0, lt=1)
    members: int = Field(gt=0, le=100_000)
    ensemble: Literal["networks", "dropout"] = "networks"
    fit_on: list[Literal["train", "valid"]] = Field(default=["train"], min_length=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    encoder: TrainedEncoder | None = None

    @field_validator("fit_on")
    @classmethod
    def _each_part_once(cls, parts: list[str]) -> list[str]:
        # Twice the same examples would be counted and trained on twice, and so would their weights.
        twice = sorted({part for part in parts if parts.count(part) > 1})
        if twice:
            raise ValueError(f"expected each part once, found {', '.join(twice)} twice")
        return parts

    @model_validator(mode="after")
    def _check_ensemble(self):
        if self.ensemble == "dropout" and (self.dropout == 0 or self.layers == 0):
            raise ValueError(
                "ensemble: dropout makes members by dropping hidden units: it needs dropout above 0 "
                f"and hidden layers, found dropout {self.dropout:g} and layers {self.layers}"
            )
        return self


def choose_device(device: str) -> str:
    """`auto` → `cuda` where there is one, else `cpu`.

    Raises:
        SettingsError: `cuda` is asked for where there is none.

    """
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise SettingsError(
            "training.device: expected cuda, found no GPU that PyTorch can use; set device to auto "
            "or cpu"
        )
    if device == "auto":
        return "cuda" if there else "cpu"
    return device
