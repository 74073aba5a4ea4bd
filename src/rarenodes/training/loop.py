"""Training an ensemble: the loop, its random streams, checkpoints and what it reports."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator, model_validator
from scipy import sparse
from torch import Generator, Tensor
from tqdm import tqdm

from rarenodes.datasets.dataset import Dataset
from rarenodes.folders import exclusive
from rarenodes.loss.coherent import RareNodeLoss
from rarenodes.loss.schedules import Moment
from rarenodes.loss.uncertainty import mutual_information
from rarenodes.randomness import numpy_stream, torch_stream
from rarenodes.settings import Settings, SettingsError
from rarenodes.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from rarenodes.training.encoders import TrainedEncoder, build_encoder, network_inputs
from rarenodes.training.ensemble import Ensemble, Shape
from rarenodes.training.memory import Size, check_memory, memory_shortage_named

log = logging.getLogger(__name__)

SECONDS_BETWEEN_CHECKPOINTS = 30.0
# Points of the validation curves; more would cost time and show no more.
VALIDATIONS = 8
# What Adam keeps of every parameter.
ADAM = ("step", "exp_avg", "exp_avg_sq")
# Looks at the ensemble after an epoch; given the number of epochs behind it.
Watch = Callable[[int, Ensemble], None]


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


@dataclass(frozen=True)
class Streams:
    """The named random streams of one training run.

    Variants share them: runs of two variants with one seed number start from the same weights and
    see the same batches and dropout, so that they differ by the variant alone.

    Attributes:
        root: the study's seed.
        dataset: name of the data set.
        variant: name of the variant, for messages.
        seed: number of the run.

    """

    root: int
    dataset: str
    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.dataset} {self.variant} seed {self.seed}"

    def initial_weights(self, members: int) -> list[Generator]:
        """One generator a network, on the CPU, so that a GPU starts from the same weights."""
        return [torch_stream(*self._name("weights"), m) for m in range(members)]

    def encoder(self) -> Generator:
        """The initial weights of an encoder under the members."""
        return torch_stream(*self._name("encoder"))

    def dropout(self, members: int, epoch: int, device: str) -> list[Generator]:
        """One generator a member, new in every epoch, so that a resumed run draws the same."""
        return [
            torch_stream(*self._name("dropout"), m, epoch, device=device) for m in range(members)
        ]

    def prediction(self, members: int, part: str, device: str) -> list[Generator]:
        """One generator a member, for predicting a part of the split with dropout."""
        name = self._name("prediction")
        return [torch_stream(*name, m, part, device=device) for m in range(members)]

    def resampling(self) -> np.random.Generator:
        """What is drawn when training examples are resampled."""
        return numpy_stream(*self._name("resampling"))

    def forest(self) -> int:
        """The seed of a forest, for a library that takes one."""
        return int(numpy_stream(*self._name("forest")).integers(2**31))

    def order(self, rows: Int[np.ndarray, " rows"], epoch: int) -> Int[np.ndarray, " rows"]:
        """The examples in this epoch's random order, the same for all members."""
        return numpy_stream(*self._name("order"), epoch).permutation(rows)

    def _name(self, purpose: str) -> tuple[int | str, ...]:
        return (self.root, "train", self.dataset, self.seed, purpose)


@dataclass
class Trained:
    """A trained ensemble and how it got there.

    Attributes:
        ensemble: the member networks.
        history: a row per epoch: mean training loss a step; now and then, on the validation part,
            where that is not trained on, the BCE of the members' coherent predictions per evaluated
            node and example (unweighted, so that variants compare) and the members' disagreement
            (mutual information, bits), by the `maximum` before and by the `product` after it is
            taken.

    """

    ensemble: Ensemble
    history: pd.DataFrame = field(repr=False)


class TrainingError(RuntimeError):
    """Training cannot go on."""


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


def train_ensemble(
    dataset: Dataset,
    loss: RareNodeLoss,
    budget: Budget,
    streams: Streams,
    checkpoint: Path | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train the members of an ensemble side by side with Adam on mini-batches.

    Args:
        dataset: features, targets and split.
        loss: maps logits `[members, batch, nodes]` and targets `[batch, nodes]` to a scalar. Where
            members are passes of one network, their mean is what it learns from.
        budget: sizes, rates and number of epochs.
        streams: the run's random streams.
        checkpoint: folder for the state at the end of an epoch, written every half minute and at
            the end; a run that finds one goes on from there, to the same result as one that was
            never interrupted. The caller must key it by everything the run depends on, the code
            (`rarenodes.training.checkpoints.CODE_DIGEST`) included. A second process waits until
            the first one has ended.
        watch: called after every epoch that is trained here, in place of the scores on validation
            data in the history; it must change nothing. A run that goes on from a checkpoint does
            not call it for earlier epochs.

    Raises:
        TrainingError: the loss is not finite; the message says at which step of which data set.
        SettingsError: the device is not there, or the networks cannot fit into its memory.
        OSError: a checkpoint cannot be written.

    """
    device = choose_device(budget.device)
    rows = np.concatenate([dataset.split[part] for part in budget.fit_on])
    size = _size(dataset, budget, len(rows))
    check_memory(size, device, str(streams))
    # In silence: a message would stand in one run's notebook and not in another's.
    alone = nullcontext()
    if checkpoint is not None:
        alone = exclusive(checkpoint / "lock", str(streams), logging.DEBUG)
    with alone, memory_shortage_named(size, device, str(streams)):
        features = network_inputs(dataset, budget.encoder).to(device)
        run = _Run.start(dataset, loss.to(device), budget, streams, features)
        return _train(run, rows, checkpoint, watch)


def _train(
    run: "_Run",
    rows: Int[np.ndarray, " rows"],
    checkpoint: Path | None,
    watch: Watch | None,
) -> Trained:
    """Every epoch that no checkpoint has behind it."""
    budget, streams = run.budget, run.streams
    if checkpoint is not None:
        run.resume(checkpoint)
    saved_at = time.monotonic()
    epochs = range(len(run.history), budget.epochs)
    for epoch in tqdm(epochs, desc=str(streams), unit="epoch", disable=None, initial=epochs.start):
        losses = run.train_epoch(epoch, streams.order(rows, epoch))
        mean_loss = _finite_mean(losses, epoch, streams)
        due = watch is None and _is_due(epoch, budget.epochs, VALIDATIONS)
        scores = run.validate() if due else {}
        run.history.append({"epoch": epoch + 1, "train_loss": mean_loss, **scores})
        run.report(run.history[-1])
        if watch is not None:
            watch(epoch + 1, run.ensemble)
        if checkpoint is not None and time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
            run.save(checkpoint)
            saved_at = time.monotonic()
    if checkpoint is not None:
        run.save(checkpoint)
    return Trained(run.ensemble, pd.DataFrame(run.history))


def prediction_dropout(
    budget: Budget, streams: Streams, part: str, device: str
) -> list[Generator] | None:
    """Dropout for predicting a part of the split: none, unless it is what makes the ensemble."""
    if budget.ensemble == "networks":
        return None
    return streams.prediction(budget.members, part, device)


def dense_rows(
    targets: sparse.csr_array, rows: Int[np.ndarray, " rows"]
) -> Float[Tensor, "rows nodes"]:
    """Some rows of sparse targets as a dense float32 tensor."""
    return torch.from_numpy(targets[rows].toarray().astype(np.float32))


@dataclass
class _Run:
    """Networks, optimiser and history, and what they are trained on.

    An encoder under the networks learns from the mean of what they say, so that it learns alike under
    any number of them; a network's own gradient does not know of the others.
    """

    dataset: Dataset
    loss: RareNodeLoss
    budget: Budget
    streams: Streams
    features: Tensor
    ensemble: Ensemble
    adam: torch.optim.Adam
    history: list[dict[str, int | float]]

    @classmethod
    def start(
        cls,
        dataset: Dataset,
        loss: RareNodeLoss,
        budget: Budget,
        streams: Streams,
        features: Tensor,
    ) -> "_Run":
        encoder = None
        if budget.encoder is not None:
            rows = dataset.split["train"]
            encoder = build_encoder(budget.encoder, dataset, rows, streams.root, streams.encoder())
        shape = Shape(
            features=features.shape[1] if encoder is None else budget.encoder.features,
            hidden=budget.hidden,
            layers=budget.layers,
            nodes=len(dataset.hierarchy),
            dropout=budget.dropout,
        )
        networks, passes = budget.members, 1
        if budget.ensemble == "dropout":
            networks, passes = passes, networks
        weights = streams.initial_weights(networks)
        ensemble = Ensemble(shape, weights, encoder, passes, loss.output)
        ensemble = ensemble.to(features.device)
        adam = torch.optim.Adam(
            _groups(ensemble, budget),
            lr=budget.learning_rate,
            weight_decay=budget.weight_decay,
            fused=True,
        )
        return cls(dataset, loss, budget, streams, features, ensemble, adam, [])

    def train_epoch(self, epoch: int, order: Int[np.ndarray, " rows"]) -> Float[Tensor, " steps"]:
        """One pass over the examples; the loss of every step."""
        device = self.features.device
        dropout = self.streams.dropout(self.budget.members, epoch, str(device))
        batches = list(_batches(order, self.budget.batch_size))
        losses = []
        for step, rows in enumerate(batches):
            inputs, targets = self._batch(rows)
            self.loss.at(Moment(epoch, self.budget.epochs, step, len(batches)))
            loss = self.loss(self.ensemble(inputs, dropout), targets) / self.ensemble.passes
            self.adam.zero_grad()
            loss.backward()
            for parameter in self.ensemble.encoder.parameters():
                parameter.grad /= len(self.ensemble.weights[0])
            self.adam.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Scores on the validation part; none where that is trained on."""
        rows = self.dataset.split["valid"]
        if "valid" in self.budget.fit_on or len(rows) == 0:
            return {}
        evaluated = torch.from_numpy(self.dataset.evaluated).to(self.features.device)
        output, hierarchy = self.ensemble.output, self.dataset.hierarchy
        plain = RareNodeLoss(hierarchy, evaluated=evaluated)
        elements = self.budget.members * int(evaluated.sum())
        device = str(self.features.device)
        dropout = prediction_dropout(self.budget, self.streams, "valid", device)
        total_bce = total_disagreement = 0.0
        for batch in _batches(rows, self.budget.batch_size):
            inputs, targets = self._batch(batch)
            logits = self.ensemble(inputs, dropout)
            if output.rule == "maximum":
                members = torch.sigmoid(logits)
            else:
                members = output.probabilities(logits, hierarchy)
            disagreement = mutual_information(members)[..., evaluated]
            if output.rule == "maximum" and output.constant is None:
                bce = plain(logits, targets)
            else:
                of_nodes = output.bce(logits, targets, hierarchy)[..., evaluated]
                bce = of_nodes.sum(dim=-1).mean(dim=-1).sum()
            total_bce += bce.item() / elements * len(batch)
            total_disagreement += disagreement.mean().item() * len(batch)
        return {
            "valid_bce": total_bce / len(rows),
            "valid_disagreement": total_disagreement / len(rows),
        }

    def report(self, row: Mapping[str, int | float]) -> None:
        """Log the scores of an epoch, for a few epochs in all."""
        if _is_due(row["epoch"] - 1, self.budget.epochs, 4):
            shown = ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "epoch")
            log.info(
                "%s: epoch %d of %d, %s", self.streams, row["epoch"], self.budget.epochs, shown
            )

    def _batch(self, rows: Int[np.ndarray, " rows"]) -> tuple[Tensor, Tensor]:
        inputs = self.features[torch.from_numpy(rows).to(self.features.device)]
        return inputs, dense_rows(self.dataset.targets, rows).to(self.features.device)

    def save(self, folder: Path) -> None:
        """Write the state."""
        save_checkpoint(folder, Checkpoint(self.history, self._tensors()))

    def resume(self, folder: Path) -> None:
        """Take up the newest whole state in `folder`, if there is one."""
        found = load_checkpoint(folder, self._blank(), self.budget.epochs)
        if found is None:
            return
        self.history = found.history
        device = next(self.ensemble.parameters()).device
        for i, parameter in enumerate(self.ensemble.parameters()):
            parameter.data.copy_(found.tensors[f"parameter.{i}"])
            self.adam.state[parameter] = {
                key: found.tensors[f"{key}.{i}"].to(device) for key in ADAM
            }
        log.debug("resumed after epoch %d", len(self.history))
        # A resumed run leaves the log of one that was never interrupted.
        for row in self.history:
            self.report(row)

    def _blank(self) -> dict[str, Tensor]:
        """Tensors of the names and shapes that a state of this run has, without memory."""
        tensors = {}
        for i, parameter in enumerate(self.ensemble.parameters()):
            blank = torch.empty_like(parameter, device="meta")
            tensors |= {f"{key}.{i}": blank for key in ("parameter", *ADAM)}
            tensors[f"step.{i}"] = torch.empty((), device="meta")
        return tensors

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {}
        for i, parameter in enumerate(self.ensemble.parameters()):
            tensors[f"parameter.{i}"] = parameter.data
            for key, value in self.adam.state[parameter].items():
                tensors[f"{key}.{i}"] = value
        return {name: value.cpu().contiguous() for name, value in tensors.items()}


def _size(dataset: Dataset, budget: Budget, examples: int) -> Size:
    examples = min(budget.batch_size, examples)
    features = dataset.features.shape[1] if budget.encoder is None else budget.encoder.features
    return Size(
        features=features,
        nodes=len(dataset.hierarchy),
        hidden=budget.hidden,
        layers=budget.layers,
        members=budget.members,
        batch_size=examples,
        networks=1 if budget.ensemble == "dropout" else budget.members,
    )


def _groups(ensemble: Ensemble, budget: Budget) -> list[dict[str, object]]:
    """Parameters for Adam, in the order of `ensemble.parameters()`: the encoder has a rate of its own."""
    encoder = {id(parameter) for parameter in ensemble.encoder.parameters()}
    if not encoder:
        return [{"params": list(ensemble.parameters())}]
    rate = budget.encoder.learning_rate or budget.learning_rate
    own = [p for p in ensemble.parameters() if id(p) in encoder]
    heads = [p for p in ensemble.parameters() if id(p) not in encoder]
    return [{"params": own, "lr": rate}, {"params": heads}]


def _is_due(epoch: int, epochs: int, times: int) -> bool:
    """Whether to do what is done about `times` times in all: at even steps, and at the end."""
    return (epoch + 1) % max(1, epochs // times) == 0 or epoch + 1 == epochs


def _batches(rows: Int[np.ndarray, " rows"], size: int) -> Iterator[Int[np.ndarray, " batch"]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _finite_mean(losses: Float[Tensor, " steps"], epoch: int, streams: Streams) -> float:
    """Mean loss of an epoch's steps; looked at once an epoch, so that a GPU need not wait."""
    finite = torch.isfinite(losses)
    if not finite.all():
        step = int((~finite).nonzero()[0])
        raise TrainingError(
            f"{streams}: loss is {losses[step].item()} at step {step + 1} of epoch {epoch + 1}; "
            "lower training.learning_rate or check the features for extreme values"
        )
    return losses.mean().item()
