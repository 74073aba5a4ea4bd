"""Training an ensemble: the loop, its random streams, checkpoints and what it reports."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor, nn
from tqdm import tqdm

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.coherent import RareNodeLoss
from rarenodes.loss.schedules import Moment
from rarenodes.loss.uncertainty import mutual_information
from rarenodes.settings import SettingsError
from rarenodes.training.budget import Budget, choose_device
from rarenodes.training.checkpoints import Checkpoint, alone_with, load_checkpoint, save_checkpoint
from rarenodes.training.encoders import build_encoder, network_inputs
from rarenodes.training.ensemble import Ensemble, Shape
from rarenodes.training.memory import Size, check_memory, memory_shortage_named
from rarenodes.training.progress import is_due, report
from rarenodes.training.sparse_run import SparseRun
from rarenodes.training.sparse_training import ADAM
from rarenodes.training.streams import Streams, prediction_dropout

log = logging.getLogger(__name__)

SECONDS_BETWEEN_CHECKPOINTS = 30.0
# Points of the validation curves; more would cost time and show no more.
VALIDATIONS = 8
# Looks at the ensemble after an epoch; given the number of epochs behind it.
Watch = Callable[[int, Ensemble], None]


@dataclass
class Trained:
    """A trained ensemble and how it got there.

    Attributes:
        ensemble: the member networks.
        history: a row per epoch: mean training loss a step; now and then, on the validation part,
            where that is not trained on, the BCE of the members' coherent predictions per evaluated
            node and example that it is known of (unweighted, so that variants compare) and the members' disagreement
            (mutual information, bits), by the `maximum` before and by the `product` after it is
            taken. Sparse training has the BCE at active nodes instead, of nodes given their parents.

    """

    ensemble: Ensemble
    history: pd.DataFrame = field(repr=False)


class TrainingError(RuntimeError):
    """Training cannot go on."""


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
        loss: maps logits `[members, batch, nodes]`, targets `[batch, nodes]` and where these are
            known, if not everywhere, to a scalar. Where
            members are passes of one network, their mean is what it learns from. With a
            `rarenodes.loss.conditional.ConditionalLoss` that is `sparse`, a step trains of the last
            layer the active nodes' rows alone, on the CPU.
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
    sparsely = getattr(loss, "sparse", None) is not None
    device = _device_of_rows(budget, streams) if sparsely else choose_device(budget.device)
    rows = np.concatenate([dataset.split[part] for part in budget.fit_on])
    size = _size(dataset, budget, len(rows), sparsely)
    check_memory(size, device, str(streams))
    alone = nullcontext() if checkpoint is None else alone_with(checkpoint, str(streams))
    with alone, memory_shortage_named(size, device, str(streams)):
        if sparsely:
            run = SparseRun.start(dataset, loss, budget, streams)
        else:
            features = network_inputs(dataset, budget.encoder).to(device)
            run = _Run.start(dataset, loss.to(device), budget, streams, features)
        return _train(run, rows, checkpoint, watch)


def _device_of_rows(budget: Budget, streams: Streams) -> str:
    if budget.device == "cuda":
        raise SettingsError(
            f"{streams}: training.device: expected cpu or auto, found cuda: active nodes' rows are "
            "trained on the CPU; remove `sparse` from the variant to train all rows on a GPU"
        )
    return "cpu"


def _train(
    run: "_Run | SparseRun",
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
        due = watch is None and is_due(epoch, budget.epochs, VALIDATIONS)
        scores = run.validate() if due else {}
        run.history.append({"epoch": epoch + 1, "train_loss": mean_loss, **scores})
        report(run.history[-1], budget.epochs, streams)
        if watch is not None:
            watch(epoch + 1, run.ensemble)
        if checkpoint is not None and time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
            run.save(checkpoint)
            saved_at = time.monotonic()
    if checkpoint is not None:
        run.save(checkpoint)
    return Trained(run.ensemble, pd.DataFrame(run.history))


def first_encoder(dataset: Dataset, budget: Budget, streams: Streams) -> nn.Module | None:
    """The encoder that a run starts with; None where it is of features."""
    if budget.encoder is None:
        return None
    rows = dataset.split["train"]
    return build_encoder(budget.encoder, dataset, rows, streams.root, streams.encoder())


def dense_rows(
    targets: sparse.csr_array, rows: Int[np.ndarray, " rows"]
) -> Float[Tensor, "rows nodes"]:
    """Some rows of sparse targets as a dense float32 tensor.

    By hand: what SciPy checks of indices takes a tenth of a small training's step.
    """
    starts, lengths = targets.indptr[rows], np.diff(targets.indptr)[rows]
    # Places of the rows' values, one row after the other.
    before = np.cumsum(lengths) - lengths
    places = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    dense = np.zeros((len(rows), targets.shape[1]), dtype=np.float32)
    dense[np.repeat(np.arange(len(rows)), lengths), targets.indices[places]] = targets.data[places]
    return torch.from_numpy(dense)


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
        encoder = first_encoder(dataset, budget, streams)
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
            inputs, targets, known = self._batch(rows)
            self.loss.at(Moment(epoch, self.budget.epochs, step, len(batches)))
            loss = self.loss(self.ensemble(inputs, dropout), targets, known)
            loss = loss / self.ensemble.passes
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
            inputs, targets, known = self._batch(batch)
            logits = self.ensemble(inputs, dropout)
            if output.rule == "maximum":
                members = torch.sigmoid(logits)
            else:
                members = output.probabilities(logits, hierarchy)
            disagreement = mutual_information(members)[..., evaluated]
            if output.rule == "maximum" and output.constant is None:
                bce = plain(logits, targets, known)
            else:
                of_nodes = output.bce(logits, targets, hierarchy)
                if known is not None:
                    of_nodes = torch.where(known, of_nodes, 0)
                bce = of_nodes[..., evaluated].sum(dim=-1).mean(dim=-1).sum()
            total_bce += bce.item() / elements * len(batch)
            total_disagreement += disagreement.mean().item() * len(batch)
        return {
            "valid_bce": total_bce / len(rows) / self._known_share("valid"),
            "valid_disagreement": total_disagreement / len(rows),
        }

    def _batch(self, rows: Int[np.ndarray, " rows"]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Inputs, targets, and where these are known; None where that is everywhere."""
        device, unknown = self.features.device, self.dataset.unknown
        inputs = self.features[torch.from_numpy(rows).to(device)]
        known = None if unknown is None else dense_rows(unknown, rows).to(device) == 0
        return inputs, dense_rows(self.dataset.targets, rows).to(device), known

    def _known_share(self, part: str) -> float:
        """Of pairs of an example and an evaluated node; 1 where everything is known."""
        evaluated = self.dataset.evaluated
        pairs = len(self.dataset.split[part]) * int(evaluated.sum())
        return int(self.dataset.known_counts(part)[evaluated].sum()) / pairs

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
            report(row, self.budget.epochs, self.streams)

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


def _size(dataset: Dataset, budget: Budget, examples: int, sparsely: bool) -> Size:
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
        sparse=sparsely,
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
