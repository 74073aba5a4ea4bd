"""Encoders between pretrained and random, and what batch norm must be told of them."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from rarenodes.datasets.encoders.efficientnet import EfficientNetLite0, pretrained_weights
from rarenodes.datasets.encoders.options import EncoderOptions

Batches = Callable[[], Iterable[UInt8[Tensor, "batch 3 size size"]]]


def blended_encoder(options: EncoderOptions, seed: int) -> nn.Module:
    """An encoder of weights `(1 − λ) · pretrained + λ · random`, with λ the option `blend`.

    Everything is blended that is a number: filters, scales, shifts, and batch norm's statistics,
    which then fit no network unless λ is 0 or `recalculate_statistics` follows. The random weights
    are the same for every λ.

    Args:
        options: the encoder.
        seed: of the random weights.

    Raises:
        FileNotFoundError: the package of the weights is not installed.
        ChecksumError: its file is not the one that is known.

    """
    encoder = EfficientNetLite0(options.size, seed)
    pretrained = pretrained_weights()
    blended = {
        name: torch.lerp(pretrained[name], random, options.blend)
        if random.is_floating_point()
        else pretrained[name]
        for name, random in encoder.state_dict().items()
    }
    encoder.load_state_dict(blended)
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def recalculate_statistics(encoder: nn.Module, batches: Iterable[Tensor]) -> None:
    """Put means and variances of these images into the batch-norm layers, in place.

    Every layer normalises by the batch at hand meanwhile, and keeps the mean over batches of their
    means and variances. Nothing else behaves as in training.

    Args:
        encoder: any network; without batch norm it stays as it is.
        batches: images, in batches of about one size.

    """
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    encoder.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    for batch in batches:
        encoder(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    encoder.eval()


@torch.no_grad()
def feature_size(encoder: nn.Module, batches: Iterable[Tensor]) -> float:
    """Root mean square of the features of images."""
    squares = [encoder(batch).to(torch.float64).square().mean(dim=1) for batch in batches]
    return float(torch.cat(squares).mean().sqrt())


def sizes_by_blend(
    blends: Iterable[float], options: EncoderOptions, seed: int, batches: Batches
) -> Iterator[tuple[float, float, float]]:
    """How large features are with blended and with recalculated statistics.

    With blended ones they vanish as λ rises: every layer divides by the spread that the pretrained
    network's much larger filters had.

    Args:
        blends: values of λ.
        options: of the encoder; its `blend` and `statistics` do not count.
        seed: of the random weights.
        batches: makes an iterator over images.

    Yields:
        λ, and the root mean square of the features before and after statistics are recalculated.

    """
    for blend in blends:
        encoder = blended_encoder(options.model_copy(update={"blend": blend}), seed)
        before = feature_size(encoder, batches())
        recalculate_statistics(encoder, batches())
        yield blend, before, feature_size(encoder, batches())


def evenly(rows: Int[np.ndarray, " rows"], most: int) -> list[Int[np.ndarray, " batch"]]:
    """Rows in batches of about one size, each of at most `most`."""
    return np.array_split(rows, -(-len(rows) // most))
