"""One root seed; every random stream is derived from it by name."""

import hashlib

import numpy as np
import torch


def derived_seed(root: int, *name: str | int) -> int:
    """A 63-bit seed that depends on the root seed and the stream's name alone.

    So adding a data set, a variant or a member changes no other stream. The parts of a name are
    kept apart: `("a", "bc")` and `("ab", "c")` are different streams.

    Args:
        root: the study's seed.
        name: what the stream is for, for example `("train", "icd10cm", "mcm", 0, "member", 3)`.

    """
    # int() makes NumPy's integers, which print differently, name the same stream.
    parts = (part if isinstance(part, str) else int(part) for part in name)
    key = "\x1f".join([str(int(root)), *map(repr, parts)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 1


def numpy_stream(root: int, *name: str | int) -> np.random.Generator:
    """NumPy generator of the named stream."""
    return np.random.default_rng(derived_seed(root, *name))


def torch_stream(root: int, *name: str | int, device: str = "cpu") -> torch.Generator:
    """PyTorch generator of the named stream."""
    return torch.Generator(device).manual_seed(derived_seed(root, *name))
