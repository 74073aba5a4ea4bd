"""What a network is given of images: their pixels, or what a frozen encoder makes of them."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from rarenodes.datasets.encoders.efficientnet import WEIGHTS_PACKAGE, WEIGHTS_SHA256
from rarenodes.datasets.encoders.features import encoded
from rarenodes.datasets.encoders.options import EncoderOptions
from rarenodes.datasets.encoders.pictures import Pictures
from rarenodes.datasets.sampling import Sampling


def image_features(
    pictures: Pictures,
    grey: UInt8[np.ndarray, "images height width"],
    train: Int[np.ndarray, " train"],
    encoder: EncoderOptions | None,
    sampling: Sampling,
    cache: Path | None = None,
) -> Float[np.ndarray, "images features"]:
    """Features of images, standardised by what the training images are like.

    Args:
        pictures: the images, for an encoder.
        grey: the same in grey, whose pixels are the features where there is no encoder.
        train: rows of training images.
        encoder: see `encoders.features.encoded`.
        sampling: the random draws.
        cache: folder of features that the encoder made before.

    """
    if encoder is None:
        return pixels(grey, train)
    # One seed for all λ and shares of the data, so that these alone make the difference.
    return encoded(pictures, train, encoder, sampling.sklearn_seed("encoder"), cache)


def pixels(
    images: UInt8[np.ndarray, "images height width"], train: Int[np.ndarray, " train"]
) -> Float[np.ndarray, "images pixels"]:
    """Pixels as features: the training mean is 0 in every pixel, and their mean square is 1.

    Raises:
        ValueError: the training images are alike, so that no pixel tells anything.

    """
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat[train].mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = np.float32(np.sqrt(np.mean(flat[train] ** 2, dtype=np.float64)))
    if scale == 0:
        raise ValueError(
            f"the pixels of all {len(train)} training images are the same, expected some that differ: "
            "add other images"
        )
    flat /= scale
    return flat


def encoder_card(encoder: EncoderOptions | None) -> dict[str, Any]:
    """Entries of a data set's card about the encoder; none where there is none."""
    if encoder is None:
        return {}
    return {
        "encoder": f"weights of {WEIGHTS_PACKAGE} {version(WEIGHTS_PACKAGE)}, Apache-2.0",
        "encoder_sha256": WEIGHTS_SHA256,
    }
