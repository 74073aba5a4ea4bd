"""Encoders of images that train along with the members, which are then heads on one encoder."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field
from torch import Generator, Tensor, nn

from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.encoders.blend import blended_encoder, evenly, recalculate_statistics
from rarenodes.datasets.encoders.efficientnet import WIDTH
from rarenodes.datasets.encoders.features import BATCH, rows_for_statistics
from rarenodes.datasets.encoders.options import EncoderOptions
from rarenodes.randomness import derived_seed
from rarenodes.settings import Settings, SettingsError

# Channels that share a mean and a variance.
GROUP = 8


class TrainedEncoder(Settings):
    """An encoder under the members: they are heads, each with weights of its own.

    Attributes:
        name: `residual`, a small network for grey images that starts from random weights; or
            `efficientnet_lite0`, which is fine-tuned.
        learning_rate: of the encoder; by default that of the heads.
        width: features of the residual network; a multiple of 32.
        blend: share of random weights that the fine-tuned network starts with, see
            `datasets.encoders.options`.
        size: width and height that the fine-tuned network's images are brought to, in pixels.

    """

    name: Literal["residual", "efficientnet_lite0"]
    learning_rate: float | None = Field(default=None, gt=0)
    width: int = Field(default=128, ge=32, le=4096, multiple_of=32)
    blend: float = Field(default=0.0, ge=0, le=1)
    size: int = Field(default=64, ge=32, le=1024)

    @property
    def features(self) -> int:
        """What the heads are given: so many numbers an image."""
        return self.width if self.name == "residual" else WIDTH


class ResidualNetwork(nn.Module):
    """Three residual blocks (He et al. 2016) on grey images, and the mean over what is left of places.

    Channels are normalised in groups within an image (Wu and He 2018), not over the batch, so an
    image's features do not depend on the others and there is nothing to keep but weights.

    Args:
        width: features, a multiple of 32; earlier blocks have a half and a quarter of the channels.
        stream: its initial weights.

    """

    def __init__(self, width: int, stream: Generator):
        super().__init__()
        quarter, half = width // 4, width // 2
        self.stem = _convolution(1, quarter, 3, 2)
        self.blocks = nn.Sequential(
            _Block(quarter, quarter, 1), _Block(quarter, half, 2), _Block(half, width, 2)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=stream)

    def forward(
        self, images: UInt8[Tensor, "batch height width"]
    ) -> Float[Tensor, "batch features"]:
        """Features of grey images, from 0 to 255."""
        grey = images[:, None].to(torch.float32) / 255  # [batch, 1, height, width]
        return self.blocks(self.stem(grey)).mean(dim=(2, 3))


class _Block(nn.Module):
    """`relu(x' + F(x))` with `F` two convolutions, and `x'` the input brought to their shape."""

    def __init__(self, channels: int, wider: int, stride: int):
        super().__init__()
        self.first = _convolution(channels, wider, 3, stride)
        self.second = _convolution(wider, wider, 3, 1)
        same = channels == wider and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(channels, wider, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return (self.shortcut(x) + self.second(self.first(x).relu())).relu()


def _convolution(channels: int, wider: int, kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, wider, kernel, stride, padding=kernel // 2, bias=False),
        nn.GroupNorm(wider // GROUP, wider),
    )


class FineTuned(nn.Module):
    """A pretrained encoder of images in colour, for grey ones.

    Batch norm keeps the statistics that it starts with, and nothing is dropped at random: features
    of an image depend on no other, and on no random stream that the heads do not know of.

    Args:
        encoder: takes `[batch, 3, size, size]`.
        size: width and height that images are brought to.

    """

    def __init__(self, encoder: nn.Module, size: int):
        super().__init__()
        self.encoder, self.size = encoder, size

    def train(self, mode: bool = True) -> "FineTuned":
        """Stays as it is when it predicts."""
        return super().train(False)

    def forward(
        self, images: UInt8[Tensor, "batch height width"]
    ) -> Float[Tensor, "batch features"]:
        """Features of grey images, from 0 to 255."""
        shape = (self.size, self.size)
        resized = nn.functional.interpolate(
            images[:, None].to(torch.float32), shape, mode="bilinear", align_corners=False
        )
        return self.encoder(resized.expand(-1, 3, -1, -1))


def build_encoder(
    settings: TrainedEncoder,
    dataset: Dataset,
    rows: Int[np.ndarray, " rows"],
    root: int,
    stream: Generator,
) -> nn.Module:
    """The encoder as a training starts with it.

    Args:
        settings: which.
        dataset: its images.
        rows: training images, for batch norm's statistics.
        root: the study's seed; the random share of a blend is that of frozen encoders.
        stream: initial weights of the residual network.

    Raises:
        FileNotFoundError: the package of the pretrained weights is not installed.

    """
    if settings.name == "residual":
        return ResidualNetwork(settings.width, stream)
    options = EncoderOptions(name=settings.name, blend=settings.blend, size=settings.size)
    seed = derived_seed(root, "dataset", dataset.name, "encoder") % 2**32
    encoder = FineTuned(blended_encoder(options, seed), settings.size)
    chosen = rows_for_statistics(rows, options, seed)
    if len(chosen):
        batches = (torch.from_numpy(dataset.images[batch]) for batch in evenly(chosen, BATCH))
        recalculate_statistics(encoder, batches)
    return encoder.requires_grad_(True)


def network_inputs(
    dataset: Dataset,
    encoder: TrainedEncoder | None,
    rows: Int[np.ndarray, " rows"] | slice = slice(None),
) -> Tensor:
    """What networks are given of some examples: features, or, where an encoder trains, grey images.

    Raises:
        SettingsError: the data set has no images.

    """
    if encoder is None:
        return torch.from_numpy(dataset.features[rows])
    if dataset.images is None:
        raise SettingsError(
            f"training.encoder: {encoder.name} takes images, but {dataset.name} has none: leave "
            "it out, or take a source of images"
        )
    return torch.from_numpy(dataset.images[rows])
