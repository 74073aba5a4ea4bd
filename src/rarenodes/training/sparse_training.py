"""Conditional training of an ensemble whose last layer is touched only at active nodes.

Layers below the last are trained by PyTorch's AdamW, the last by `SparseLayer`, with the same rate,
decay and moments. A step takes what the lower layers take, and O(pairs · width) for the last.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Generator, Tensor

from rarenodes.loss.active_nodes import ActiveNodes
from rarenodes.loss.best_first import Likeliest, likeliest
from rarenodes.loss.conditional import ConditionalLoss
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.training.ensemble import Ensemble
from rarenodes.training.sparse_layer import RowAdam, SparseLayer

# What Adam keeps of every parameter.
ADAM = ("step", "exp_avg", "exp_avg_sq")
# Examples of inputs for the encoder, or of sparse features, whose rows become dense by the batch.
Inputs = Tensor | sparse.csr_array


class SparseTraining:
    """An ensemble in conditional training, and its optimiser's state, on the CPU.

    Args:
        ensemble: networks; its layers below the last are trained in place, its last layer where
            `finish` is called.
        adam: how all layers are updated.

    Attributes:
        layer: the last layer.

    Raises:
        ValueError: an ensemble of passes of one network.

    """

    def __init__(self, ensemble: Ensemble, adam: RowAdam):
        if ensemble.passes > 1:
            raise ValueError(
                f"sparse training is of networks, found {ensemble.passes} passes of one network"
            )
        self.ensemble = ensemble
        self.layer = SparseLayer(ensemble.rows(), adam)
        last = {id(ensemble.weights[-1]), id(ensemble.biases[-1])}
        below = [p for p in ensemble.parameters() if id(p) not in last and p.requires_grad]
        self._below = None
        if below:
            self._below = torch.optim.AdamW(
                below,
                lr=adam.learning_rate,
                betas=adam.betas,
                eps=adam.epsilon,
                weight_decay=adam.weight_decay,
                fused=True,
            )

    def step(
        self,
        inputs: Tensor,
        active: ActiveNodes,
        dropout: Sequence[Generator] | None = None,
        loss: ConditionalLoss | None = None,
    ) -> float:
        """One step on a batch; its loss before the step, as `SparseLayer.loss` has it.

        Args:
            inputs: a batch for the encoder.
            active: the active nodes of its examples.
            dropout: one generator a member; None for no dropout.
            loss: gives shift, node weights and focal term; None for the plain conditional loss.

        """
        hidden = self.ensemble.hidden(inputs, dropout)
        shift = None if loss is None else loss.shift
        value, gradient = self.layer.step(
            hidden, active, shift, self._factors(hidden, active, loss)
        )
        if self._below is not None:
            self._below.zero_grad()
            hidden.backward(gradient)
            self._below.step()
        return value

    def _factors(
        self, hidden: Tensor, active: ActiveNodes, loss: ConditionalLoss | None
    ) -> Float[Tensor, " pairs"] | None:
        """What the loss of every pair is multiplied by; None for 1."""
        if loss is None:
            return None
        node, positive = torch.from_numpy(active.nodes).long(), torch.from_numpy(active.positive)
        scores = torch.empty(0, 1, len(node))  # without a focal term their type is all that matters
        if loss.focal is not None:
            scores = self.layer.logits(hidden, active).unsqueeze(1)
        return loss.weight_of_pairs(scores, node, positive.bool())

    def epoch(
        self,
        inputs: Inputs,
        active: ActiveNodes,
        order: Int[np.ndarray, " examples"],
        batch_size: int,
        dropout: Sequence[Generator] | None = None,
    ) -> float:
        """Steps on some examples, batch by batch; the mean of their losses.

        Args:
            inputs: all examples.
            active: the active nodes of all examples.
            order: the examples to train on, in their order.
            batch_size: examples a step; the last batch may be smaller.
            dropout: one generator a member; None for no dropout.

        """
        losses = [
            self.step(_rows(inputs, batch), active.of(batch), dropout)
            for batch in _batches(order, batch_size)
        ]
        return float(np.mean(losses))

    def state(self) -> dict[str, Tensor]:
        """All that later steps depend on, by name, after at least one step."""
        tensors = {f"last.{name}": value for name, value in self.layer.state().items()}
        for i, parameter in enumerate(self._parameters()):
            tensors[f"parameter.{i}"] = parameter.data
            for key in ADAM:
                tensors[f"{key}.{i}"] = self._below.state[parameter][key]
        return tensors

    def blank(self) -> dict[str, Tensor]:
        """Tensors of the names, shapes and types that `state` gives, without memory."""
        like = {f"last.{name}": value for name, value in self.layer.state().items()}
        for i, parameter in enumerate(self._parameters()):
            like |= {f"{key}.{i}": parameter for key in ("parameter", "exp_avg", "exp_avg_sq")}
            like[f"step.{i}"] = torch.empty(())
        return {name: torch.empty_like(value, device="meta") for name, value in like.items()}

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave of a training of the same shape."""
        own = {
            name.removeprefix("last."): state[name] for name in state if name.startswith("last.")
        }
        self.layer.take(own)
        for i, parameter in enumerate(self._parameters()):
            parameter.data.copy_(state[f"parameter.{i}"])
            self._below.state[parameter] = {key: state[f"{key}.{i}"] for key in ADAM}

    def _parameters(self) -> list[Tensor]:
        """What is trained below the last layer."""
        return [] if self._below is None else self._below.param_groups[0]["params"]

    @torch.no_grad()
    def likeliest(
        self,
        inputs: Inputs,
        hierarchy: Hierarchy,
        batch_size: int = 512,
        *,
        most: int | None = None,
        above: float = 0.0,
        counted: Tensor | None = None,
    ) -> Likeliest:
        """`rarenodes.loss.best_first.likeliest` of all examples, batch by batch.

        Args:
            inputs: all examples.
            hierarchy: the nodes' hierarchy.
            batch_size: examples whose hidden units are held at once.
            most: most nodes of an example; None means all that are likelier than `above`.
            above: probability that every node exceeds.
            counted: `[nodes]` bool, nodes to be found; None means all.

        """
        weight, parts = self.layer.present(), []
        for batch in _batches(np.arange(inputs.shape[0]), batch_size):
            hidden = self.ensemble.hidden(_rows(inputs, batch))
            parts.append(
                likeliest(hidden, weight, hierarchy, most=most, above=above, counted=counted)
            )
        return Likeliest.joined(parts)

    @torch.no_grad()
    def finish(self) -> Ensemble:
        """The ensemble, with the trained last layer copied into it; training can go on."""
        weight = self.layer.present()
        self.ensemble.weights[-1].copy_(weight[..., :-1].mT)
        self.ensemble.biases[-1].copy_(weight[..., -1:].mT)
        return self.ensemble


def _batches(order: Int[np.ndarray, " examples"], size: int) -> list[Int[np.ndarray, " batch"]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _rows(inputs: Inputs, batch: Int[np.ndarray, " batch"]) -> Tensor:
    if isinstance(inputs, Tensor):
        return inputs[torch.from_numpy(batch)]
    return torch.from_numpy(inputs[batch].toarray().astype(np.float32, copy=False))
