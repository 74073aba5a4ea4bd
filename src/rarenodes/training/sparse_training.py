"""Conditional training of an ensemble whose last layer is touched only at active nodes.

Layers below the last are trained by PyTorch's AdamW, the last by `SparseLayer`, with the same rate,
decay and moments. A step takes what the lower layers take, and O(pairs · width) for the last.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from scipy import sparse
from torch import Generator, Tensor

from rarenodes.loss.active_nodes import ActiveNodes
from rarenodes.loss.best_first import Likeliest, likeliest
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.training.ensemble import Ensemble
from rarenodes.training.sparse_layer import RowAdam, SparseLayer

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
        weight, bias = ensemble.weights[-1].detach(), ensemble.biases[-1].detach()
        self.layer = SparseLayer(torch.cat([weight.mT, bias.mT], dim=2), adam)
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
        self, inputs: Tensor, active: ActiveNodes, dropout: Sequence[Generator] | None = None
    ) -> float:
        """One step on a batch; its loss before the step, as `SparseLayer.loss` has it.

        Args:
            inputs: a batch for the encoder.
            active: the active nodes of its examples.
            dropout: one generator a member; None for no dropout.

        """
        hidden = self.ensemble.hidden(inputs, dropout)
        loss, gradient = self.layer.step(hidden, active)
        if self._below is not None:
            self._below.zero_grad()
            hidden.backward(gradient)
            self._below.step()
        return loss

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
        self.layer.settle()
        parts = []
        for batch in _batches(np.arange(inputs.shape[0]), batch_size):
            hidden, weight = self.ensemble.hidden(_rows(inputs, batch)), self.layer.weight
            parts.append(
                likeliest(hidden, weight, hierarchy, most=most, above=above, counted=counted)
            )
        return Likeliest.joined(parts)

    @torch.no_grad()
    def finish(self) -> Ensemble:
        """The ensemble, with the trained last layer copied into it."""
        self.layer.settle()
        self.ensemble.weights[-1].copy_(self.layer.weight[..., :-1].mT)
        self.ensemble.biases[-1].copy_(self.layer.weight[..., -1:].mT)
        return self.ensemble


def _batches(order: Int[np.ndarray, " examples"], size: int) -> list[Int[np.ndarray, " batch"]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _rows(inputs: Inputs, batch: Int[np.ndarray, " batch"]) -> Tensor:
    if isinstance(inputs, Tensor):
        return inputs[torch.from_numpy(batch)]
    return torch.from_numpy(inputs[batch].toarray().astype(np.float32, copy=False))
