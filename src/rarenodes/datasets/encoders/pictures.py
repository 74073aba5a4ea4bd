"""Where the images to encode come from: memory, or files that are read when they are needed."""

import hashlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8


@runtime_checkable
class Pictures(Protocol):
    """Images that are made ready one at a time, so that only a few are in memory."""

    def __len__(self) -> int:
        """How many there are."""

    def digest(self, row: int) -> bytes:
        """SHA-256 of an image: two of one digest have the same features."""

    def in_colour(self, row: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """An image in red, green and blue, brought to a size."""


@dataclass(frozen=True)
class GreyPictures:
    """Grey images in memory.

    Attributes:
        images: `[images, height, width]`, from 0 to 255.

    """

    images: UInt8[np.ndarray, "images height width"]

    def __len__(self) -> int:
        return len(self.images)

    def digest(self, row: int) -> bytes:
        """SHA-256 of height, width and grey values."""
        image = np.ascontiguousarray(self.images[row])
        return hashlib.sha256(f"grey {image.shape}".encode() + image.tobytes()).digest()

    def in_colour(self, row: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """The image thrice, bilinearly resized."""
        from PIL import Image

        resized = Image.fromarray(self.images[row]).resize((size, size), Image.Resampling.BILINEAR)
        return np.repeat(np.asarray(resized)[..., None], 3, axis=2)
