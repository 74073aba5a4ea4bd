"""Member networks that train side by side, held as batched tensors."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from rarenodes.folders import read_json, reading, verify_checksums, write_checksums, writing
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.output import Output

FILES = ("ensemble.safetensors", "ensemble.json")
MEND = "train again, with training.keep_ensembles on"


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

    Or one network and several *passes*: its members are then the same network under different
    dropout, also when it predicts (Monte Carlo dropout, Gal and Ghahramani, ICML 2016).

    Args:
        shape: size of every member.
        streams: one generator a network, for its initial weights.
        encoder: turns a batch of inputs into `[batch, features]`; the identity for vectors.
        passes: times that the one network is run; 1 where the members are networks.
        output: how logits become probabilities, as the loss of the training has it; None means by
            the maximum.

    Raises:
        ValueError: no streams; or several passes of several networks, or without dropout.

    """

    def __init__(
        self,
        shape: Shape,
        streams: Sequence[Generator],
        encoder: nn.Module | None = None,
        passes: int = 1,
        output: Output | None = None,
    ):
        super().__init__()
        if not streams:
            raise ValueError("an ensemble needs at least one member, found no streams")
        if passes > 1 and (len(streams) > 1 or shape.dropout == 0 or shape.layers == 0):
            raise ValueError(
                f"{passes} passes need one network with hidden layers and dropout, found "
                f"{len(streams)} networks, {shape.layers} hidden layers, dropout {shape.dropout}"
            )
        self.shape = shape
        self.passes = passes
        self.output = Output() if output is None else output
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
        """Number of members: networks, or passes of the one network."""
        return len(self.weights[0]) * self.passes

    def forward(
        self, inputs: Tensor, dropout: Sequence[Generator] | None = None
    ) -> Float[Tensor, "members batch nodes"]:
        """Unconstrained logits of every member.

        Args:
            inputs: a batch for the encoder; `[batch, features]` for vectors.
            dropout: one generator a member to draw dropout from; None for no dropout.

        """
        activations = self.hidden(inputs, dropout)
        logits = torch.baddbmm(self.biases[-1], activations, self.weights[-1])
        return logits.view(self.members, activations.shape[1] // self.passes, -1)

    def hidden(
        self, inputs: Tensor, dropout: Sequence[Generator] | None = None
    ) -> Float[Tensor, "networks examples units"]:
        """What the last layer of every network is given; `forward` says of what.

        Returns:
            `[networks, passes · batch, units]`: passes of one network are more examples to it.

        """
        encoded = self.encoder(inputs)
        if self.passes > 1:
            encoded = encoded.repeat(self.passes, 1)
        activations = encoded.expand(len(self.weights[0]), -1, -1)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            activations = torch.baddbmm(bias, activations, weight).relu()
            if dropout is not None and self.shape.dropout > 0:
                activations = activations * self._dropout_scale(activations, dropout)
        return activations

    def rows(self) -> Float[Tensor, "networks nodes columns"]:
        """A copy of the last layer with a row a node: its weights, and its bias as last column."""
        return torch.cat([self.weights[-1].mT, self.biases[-1].mT], dim=2).detach()

    def predict(
        self,
        inputs: Tensor,
        hierarchy: Hierarchy,
        batch_size: int = 512,
        dropout: Sequence[Generator] | None = None,
    ) -> Float[Tensor, "examples nodes"]:
        """Coherent probabilities: the mean over members of each member's, by `output`.

        Args:
            inputs: all examples, for the encoder.
            hierarchy: the nodes' hierarchy.
            batch_size: examples at a time.
            dropout: one generator a member where members are passes of one network; else None.

        """
        return torch.cat(list(self.predictions(inputs, hierarchy, batch_size, dropout)))

    def predictions(
        self,
        inputs: Tensor,
        hierarchy: Hierarchy,
        batch_size: int = 512,
        dropout: Sequence[Generator] | None = None,
    ) -> Iterator[Float[Tensor, "batch nodes"]]:
        """What `predict` returns, batch by batch."""
        for batch in inputs.split(batch_size):
            yield self._predict_batch(batch, hierarchy, dropout)

    @torch.no_grad()
    def _predict_batch(
        self, batch: Tensor, hierarchy: Hierarchy, dropout: Sequence[Generator] | None
    ) -> Float[Tensor, "batch nodes"]:
        return self.output.probabilities(self(batch, dropout), hierarchy).mean(dim=0)

    def save(self, folder: Path) -> None:
        """Write `ensemble.safetensors`, `ensemble.json` and the checksums of both.

        Raises:
            OSError: they cannot be written.

        """
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        if self.output.constant is not None:
            tensors["output.constant"] = self.output.constant.contiguous()
        description = {
            "networks": len(self.weights[0]),
            "passes": self.passes,
            "output": self.output.rule,
            "shape": asdict(self.shape),
        }
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / FILES[0])
            (folder / FILES[1]).write_text(json.dumps(description, indent=1) + "\n")
            write_checksums(folder, FILES)

    @classmethod
    def load(cls, folder: Path, encoder: nn.Module | None = None, mend: str = MEND) -> "Ensemble":
        """Read what `save` wrote; the encoder, if there was one, is the caller's to build.

        Args:
            folder: of the files.
            encoder: under the networks.
            mend: what to do where they are damaged, for the message.

        Raises:
            UnreadableFile: a file is missing or damaged, or the two are not of the same ensemble.

        """
        verify_checksums(folder, mend)
        description = read_json(folder / FILES[1], mend)
        with reading(folder / FILES[0], mend):
            tensors = load_file(folder / FILES[0])
            constant = tensors.pop("output.constant", None)
        with reading(folder / FILES[1], mend):
            streams = [torch.Generator() for _ in range(description["networks"])]
            output = Output(description["output"], constant)
            shape = Shape(**description["shape"])
            ensemble = cls(shape, streams, encoder, description["passes"], output)
        with reading(folder / FILES[0], mend):
            expected = {name: value.shape for name, value in ensemble.state_dict().items()}
            if {name: value.shape for name, value in tensors.items()} != expected:
                raise ValueError(f"it is not of the networks that {FILES[1]} describes")
            ensemble.load_state_dict(tensors)
        return ensemble

    def _dropout_scale(self, like: Tensor, streams: Sequence[Generator]) -> Tensor:
        """0 for dropped units, 1 / (1 − p) for the others; like `[networks, passes · batch, units]`."""
        keep = 1 - self.shape.dropout
        scale = torch.empty_like(like)
        by_member = scale.view(len(streams), -1, scale.shape[-1])
        for member, stream in zip(by_member, streams, strict=True):
            member.bernoulli_(keep, generator=stream)
        return scale.div_(keep)


def _uniform(shape: tuple[int, int], bound: float, stream: Generator) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound, generator=stream)
