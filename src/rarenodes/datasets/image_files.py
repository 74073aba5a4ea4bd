"""Images in files: looked at one by one, and what is wrong with one in a line."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from rarenodes.datasets.files import FileFault, brief, read_bytes

if TYPE_CHECKING:
    from PIL import Image

# Modes of Pillow with 8 bits a channel that turn into red, green and blue without a choice.
_PLAIN = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"}
# Files that are read at a time, and that wait to be used.
READERS, WAITING = 2, 64


class ImageFault(FileFault):
    """An image that cannot be used; the message says what was found and the mend."""


@dataclass(frozen=True)
class Seen:
    """What is kept of an image.

    Attributes:
        digest: SHA-256 of the file.
        grey: the image in grey, brought to a size.

    """

    digest: bytes
    grey: UInt8[np.ndarray, "size size"]


def look_at(paths: Sequence[Path], smallest: int, size: int) -> Iterator[Seen | ImageFault]:
    """Decode images, a few at a time; in place of one that cannot be used, what is wrong with it.

    Args:
        paths: the files.
        smallest: least width and height, in pixels.
        size: width and height that grey images are brought to.

    """

    def looked(path: Path) -> Seen | ImageFault:
        try:
            content = _content(path)
            return Seen(_digest(content), grey(decoded_image(content, smallest), size))
        except ImageFault as fault:
            return fault

    with ThreadPoolExecutor(READERS) as readers:
        waiting = [readers.submit(looked, path) for path in paths[:WAITING]]
        numbers = range(len(paths))
        for number in tqdm(numbers, desc="reading images", unit="image", disable=None):
            yield waiting.pop(0).result()
            if number + WAITING < len(paths):
                waiting.append(readers.submit(looked, paths[number + WAITING]))


def decoded_image(content: bytes, smallest: int = 1) -> "Image.Image":
    """An image in red, green and blue, turned as the camera was held.

    Args:
        content: of a file in a format that Pillow reads.
        smallest: least width and height, in pixels.

    Raises:
        ImageFault: it is damaged or no image, too small or too large, or in colours that do not turn
            into 8 bits of red, green and blue without a choice.

    """
    # Imported here: who reads a prepared data set decodes nothing.
    from PIL import Image, ImageOps

    try:
        image = Image.open(io.BytesIO(content))
        # Of a 16-bit file in colour Pillow keeps the upper 8 bits and says nothing.
        deep = image.mode not in _PLAIN or any(";16" in str(tile) for tile in image.tile)
        image.load()
        turned = ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        raise ImageFault(f"{brief(error, 200)}: make it smaller") from None
    # Pillow's readers raise whatever a damaged file makes them stumble over.
    except Exception as error:
        said = brief(error, 100) or type(error).__name__
        raise ImageFault(f"cannot be decoded ({_without_address(said)}): fetch it again") from None
    if image.mode == "CMYK":
        raise ImageFault("found the colours of print (CMYK), expected RGB or grey: convert it")
    if deep:
        raise ImageFault(
            f"found 16 bits or more a channel (mode {image.mode}), expected 8: convert it, and say "
            "then which value is white"
        )
    if min(image.size) < smallest:
        raise ImageFault(
            f"found {image.width} × {image.height} pixels, expected at least {smallest} each way: "
            "leave it out, or set the option smallest"
        )
    return turned.convert("RGB")


def grey(image: "Image.Image", size: int) -> UInt8[np.ndarray, "size size"]:
    """An image in grey; the whole of it is brought to a square."""
    from PIL import Image

    return np.asarray(image.convert("L").resize((size, size), Image.Resampling.BILINEAR))


@dataclass(frozen=True)
class ImageFiles:
    """Images that are read when they are needed; see `encoders.pictures.Pictures`.

    Attributes:
        paths: the files.
        digests: SHA-256 of each, taken when it was looked at.

    """

    paths: Sequence[Path]
    digests: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.paths)

    def digest(self, row: int) -> bytes:
        """SHA-256 of the file."""
        return self.digests[row]

    def in_colour(self, row: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """The whole image, brought to a square.

        Raises:
            ImageFault: the file is another one than it was.

        """
        from PIL import Image

        content = _content(self.paths[row])
        if _digest(content) != self.digests[row]:
            raise ImageFault(f"{self.paths[row]}: changed while it was read: run `prepare` again")
        resized = decoded_image(content).resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(resized)


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path, "an image")
    except FileNotFoundError:
        raise ImageFault("no such file: correct the path") from None
    except OSError as error:
        raise ImageFault(str(error).removeprefix(f"{path}: ")) from None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _without_address(said: str) -> str:
    """What Pillow says, without where in memory the file was."""
    return "no format that Pillow knows" if "cannot identify image file" in said else said
