"""Features that were made before, by digest of the image, in files that are whole or not there."""

import hashlib
import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import safe_open
from safetensors.numpy import save_file

from rarenodes.folders import UnreadableFile, reading, writing

log = logging.getLogger(__name__)


class FeatureCache:
    """Features of one encoder, in a folder of its own.

    Args:
        folder: of the encoder; None keeps nothing.

    """

    def __init__(self, folder: Path | None):
        self.folder = folder

    def find(self, wanted: set[bytes]) -> dict[bytes, Float[np.ndarray, " features"]]:
        """What is kept of some images, by digest.

        A damaged file gets the ending `.unusable`, with a warning: its images are encoded again.
        """
        found: dict[bytes, np.ndarray] = {}
        for path in sorted(self.folder.glob("*.safetensors")) if self.folder else ():
            try:
                digests, features = _read(path)
            except UnreadableFile as error:
                log.warning("%s", error)
                path.replace(path.with_suffix(".unusable"))
                continue
            found |= {d: row for d, row in zip(digests, features, strict=True) if d in wanted}
        return found

    def keep(self, digests: list[bytes], features: Float[np.ndarray, "images features"]) -> None:
        """Keep the features of further images, in one more file.

        Raises:
            OSError: it cannot be written.

        """
        if self.folder is None:
            return
        name = hashlib.sha256(b"".join(digests)).hexdigest()[:16]
        path, partial = (self.folder / f"{name}{end}" for end in (".safetensors", ".partial"))
        arrays = {
            "digests": np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32),
            "features": np.ascontiguousarray(features),
        }
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(arrays, partial, metadata={"sha256": _checksum(arrays)})
            partial.replace(path)


def _read(path: Path) -> tuple[list[bytes], np.ndarray]:
    with reading(path, "its images are encoded again"):
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in ("digests", "features")}
            if (file.metadata() or {})["sha256"] != _checksum(arrays):
                raise ValueError("its checksum is not the one it was stored with")
        return [row.tobytes() for row in arrays["digests"]], arrays["features"]


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(repr([array.shape for array in arrays.values()]).encode())
    for array in arrays.values():
        digest.update(array.tobytes())
    return digest.hexdigest()
