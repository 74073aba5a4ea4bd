"""One run of sparse conditional training: an epoch, its validation, and its state on disk."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.active_nodes import ActiveNodes, active_nodes
from rarenodes.loss.conditional import ConditionalLoss
from rarenodes.loss.schedules import Moment
from rarenodes.settings import SettingsError
from rarenodes.training.budget import Budget
from rarenodes.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from rarenodes.training.ensemble import Ensemble, Shape
from rarenodes.training.progress import report
from rarenodes.training.sparse_layer import RowAdam
from rarenodes.training.sparse_training import SparseTraining
from rarenodes.training.streams import Streams

log = logging.getLogger(__name__)


@dataclass
class SparseRun:
    """Networks, optimiser and history, and what they are trained on.

    Weight decay is decoupled, as in AdamW; that of dense runs is L2, as in Adam.

    Attributes:
        dataset: the examples.
        loss: with `sparse` set; gives shift, weights and focal term, and how networks predict.
        budget: sizes, rates and number of epochs.
        streams: the run's random streams, of which it draws as a dense run does.
        features: all examples.
        active: nodes that count and are active in each example.
        training: networks and optimiser.
        history: a row per epoch.

    """

    dataset: Dataset
    loss: ConditionalLoss
    budget: Budget
    streams: Streams
    features: Tensor
    active: ActiveNodes
    training: SparseTraining
    history: list[dict[str, int | float]]

    @classmethod
    def start(
        cls, dataset: Dataset, loss: ConditionalLoss, budget: Budget, streams: Streams
    ) -> "SparseRun":
        """A run before its first epoch.

        Raises:
            SettingsError: members that are passes of one network, or an encoder that trains.

        """
        if budget.encoder is not None:
            raise SettingsError(
                f"{streams}: training.encoder: sparse training is of features, found "
                f"{budget.encoder.name}: remove `sparse` from the variant, or leave out "
                "training.encoder"
            )
        if budget.ensemble == "dropout":
            raise SettingsError(
                f"{streams}: training.ensemble: sparse training is of networks, found dropout: "
                "remove `sparse` from the variant, or set training.ensemble to networks"
            )
        shape = Shape(
            features=dataset.features.shape[1],
            hidden=budget.hidden,
            layers=budget.layers,
            nodes=len(dataset.hierarchy),
            dropout=budget.dropout,
        )
        weights = streams.initial_weights(budget.members)
        ensemble = Ensemble(shape, weights, output=loss.output)
        adam = RowAdam(budget.learning_rate, budget.weight_decay, loss.sparse)
        active = active_nodes(dataset.targets, dataset.hierarchy)
        if dataset.unknown is not None:
            active = active.without(dataset.unknown)
        if loss.evaluated is not None:
            active = active.among(loss.evaluated.numpy())
        features = torch.from_numpy(dataset.features)
        training = SparseTraining(ensemble, adam)
        return cls(dataset, loss, budget, streams, features, active, training, [])

    @property
    def ensemble(self) -> Ensemble:
        """The networks as they are now."""
        return self.training.finish()

    def train_epoch(self, epoch: int, order: Int[np.ndarray, " rows"]) -> Float[Tensor, " steps"]:
        """One pass over the examples; the loss of every step."""
        size = self.budget.batch_size
        dropout = self.streams.dropout(self.budget.members, epoch, "cpu")
        batches = [order[first : first + size] for first in range(0, len(order), size)]
        losses = []
        for step, rows in enumerate(batches):
            self.loss.at(Moment(epoch, self.budget.epochs, step, len(batches)))
            inputs, active = self.features[torch.from_numpy(rows)], self.active.of(rows)
            losses.append(self.training.step(inputs, active, dropout, self.loss))
        return torch.tensor(losses)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean binary cross-entropy at active nodes of the validation part, unweighted.

        Of the members' logits as they predict: without shift, and with the constants of nodes that
        have one. That of all nodes, which dense runs have, would take a dense table. Nothing where
        the validation part is trained on.
        """
        rows, total, pairs = self.dataset.split["valid"], 0.0, 0
        if "valid" in self.budget.fit_on or len(rows) == 0:
            return {}
        layer, weight = self.training.layer, self.training.layer.present()
        for first in range(0, len(rows), self.budget.batch_size):
            batch = rows[first : first + self.budget.batch_size]
            active = self.active.of(batch)
            hidden = self.training.ensemble.hidden(self.features[torch.from_numpy(batch)])
            logits = self._as_predicted(layer.logits(hidden, active, weight), active)
            positive = torch.from_numpy(active.positive).float().expand_as(logits)
            total += functional.binary_cross_entropy_with_logits(
                logits, positive, reduction="sum"
            ).item()
            pairs += logits.numel()
        return {"valid_active_bce": total / pairs} if pairs else {}

    def _as_predicted(self, logits: Tensor, active: ActiveNodes) -> Tensor:
        constant = self.loss.output.constant
        if constant is None:
            return logits
        of_pairs = constant[torch.from_numpy(active.nodes).long()]
        return torch.where(of_pairs.isnan(), logits, torch.logit(of_pairs))

    def save(self, folder: Path) -> None:
        """Write the state."""
        tensors = {name: value.contiguous() for name, value in self.training.state().items()}
        save_checkpoint(folder, Checkpoint(self.history, tensors))

    def resume(self, folder: Path) -> None:
        """Take up the newest whole state in `folder`, if there is one."""
        found = load_checkpoint(folder, self.training.blank(), self.budget.epochs)
        if found is None:
            return
        self.history = found.history
        self.training.take(found.tensors)
        log.debug("resumed after epoch %d", len(self.history))
        # A resumed run leaves the log of one that was never interrupted.
        for row in self.history:
            report(row, self.budget.epochs, self.streams)
