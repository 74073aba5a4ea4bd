"""Member networks that train side by side, held as batched tensors."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from rarenodes.hierarchy import Hierarchy


@dataclass(frozen=True)
class Shape:
    """Size of every member network.

    Attributes:
        features: inputs.
        hidden: units of every hidden layer.
        layers: number of hidden layers, at least 0.
        nodes: outputs.
        dropout: probability that a hidden unit is dropped while training, in [0, 1).

    """

    features: int
    hidden: int
    layers: int
    nodes: int
    dropout: float

    @property
    def widths(self) -> list[int]:
        """Units of every layer, inputs and outputs included."""
        return [self.features, *[self.hidden] * self.layers, self.nodes]


class Ensemble(nn.Module):
    """`M` member networks (input → hidden ReLU layers → one logit a node) on a shared encoder.

    A layer of all members is one batched matrix product. Every member draws its initial weights,
    and while training its dropout, from a stream of its own, so that a member is the same whether
    it trains alone or beside others.

    Args:
        shape: size of every member.
        streams: one generator a member, for its initial weights.
        encoder: turns a batch of inputs into `[batch, features]`; the identity for vectors.

    """

    def __init__(
        self, shape: Shape, streams: Sequence[Generator], encoder: nn.Module | None = None
    ):
        super().__init__()
        if not streams:
            raise ValueError("an ensemble needs at least one member, found no streams")
        self.shape = shape
        self.encoder = encoder or nn.Identity()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in zip(shape.widths, shape.widths[1:], strict=False):
            bound = fan_in**-0.5
            weight, bias = [], []
            for stream in streams:
                weight.append(_uniform((fan_in, fan_out), bound, stream))
                bias.append(_uniform((1, fan_out), bound, stream))
            self.weights.append(nn.Parameter(torch.stack(weight)))
            self.biases.append(nn.Parameter(torch.stack(bias)))

    @property
    def members(self) -> int:
        """Number of member networks."""
        return len(self.weights[0])

    def forward(
        self, inputs: Tensor, dropout: Sequence[Generator] | None = None
    ) -> Float[Tensor, "members batch nodes"]:
        """Unconstrained logits of every member.

        Args:
            inputs: a batch for the encoder; `[batch, features]` for vectors.
            dropout: one generator a member to draw dropout from; None for no dropout.

        """
        activations = self.encoder(inputs).expand(self.members, -1, -1)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            activations = torch.baddbmm(bias, activations, weight)
            if layer < last:
                activations = activations.relu()
                if dropout is not None and self.shape.dropout > 0:
                    activations = activations * self._dropout_scale(activations, dropout)
        return activations

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, hierarchy: Hierarchy, batch_size: int = 512
    ) -> Float[Tensor, "examples nodes"]:
        """Coherent probabilities: the mean over members of each member's constrained ones."""
        chunks = []
        for batch in inputs.split(batch_size):
            logits = hierarchy.max_over_descendants(self(batch))
            chunks.append(torch.sigmoid(logits).mean(dim=0))
        return torch.cat(chunks)

    def save(self, folder: Path) -> None:
        """Write `ensemble.safetensors` and `ensemble.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(tensors, folder / "ensemble.safetensors")
        description = {"members": self.members, "shape": asdict(self.shape)}
        (folder / "ensemble.json").write_text(json.dumps(description, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path, encoder: nn.Module | None = None) -> "Ensemble":
        """Read what `save` wrote; the encoder, if there was one, is the caller's to build."""
        description = json.loads((folder / "ensemble.json").read_text())
        streams = [torch.Generator() for _ in range(description["members"])]
        ensemble = cls(Shape(**description["shape"]), streams, encoder)
        ensemble.load_state_dict(load_file(folder / "ensemble.safetensors"))
        return ensemble

    def _dropout_scale(self, like: Tensor, streams: Sequence[Generator]) -> Tensor:
        """0 for dropped units, 1 / (1 − p) for the others, `[members, batch, units]`."""
        keep = 1 - self.shape.dropout
        scale = torch.empty_like(like)
        for member, stream in enumerate(streams):
            scale[member].bernoulli_(keep, generator=stream)
        return scale.div_(keep)


def _uniform(shape: tuple[int, int], bound: float, stream: Generator) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound, generator=stream)
