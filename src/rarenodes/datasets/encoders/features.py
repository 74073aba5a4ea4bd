"""Features that a frozen encoder makes of images: batch by batch, and once."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from rarenodes.datasets.encoders.blend import blended_encoder, evenly, recalculate_statistics
from rarenodes.datasets.encoders.cache import FeatureCache
from rarenodes.datasets.encoders.efficientnet import WEIGHTS_SHA256, WIDTH
from rarenodes.datasets.encoders.options import EncoderOptions
from rarenodes.datasets.encoders.pictures import Pictures

# Every batch has this size, so that an image's features do not depend on how many are left.
BATCH = 64
# Images that go into one file of the cache: what an interrupted run loses at most.
CHUNK = 1024
# Batch norm's statistics are of at most so many training images.
MOST_FOR_STATISTICS = 2048
# Images are made ready by so many threads while the encoder is at the batch before.
READERS = 2
_CODE = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


def encoded(
    pictures: Pictures,
    train: Int[np.ndarray, " train"],
    options: EncoderOptions,
    seed: int,
    cache: Path | None = None,
) -> Float[np.ndarray, "images 1280"]:
    """Features of all images, standardised: over training images each has mean 0 and variance 1.

    One thread adds up, so that the last digits depend on the processor alone.

    Args:
        pictures: the images.
        train: rows of training images; batch norm's statistics are of 2,048 of them at most.
        options: the encoder.
        seed: of its random weights, and of the draw of images for the statistics.
        cache: folder with what was encoded before, by encoder and digest of the image.

    Raises:
        ValueError: no training image.
        OSError: an image cannot be read, or the cache not be written.

    """
    if not len(train):
        raise ValueError("an encoder needs at least one training image, found none")
    digests = [pictures.digest(row) for row in range(len(pictures))]
    chosen = rows_for_statistics(train, options, seed)
    key = _key(options, seed, [digests[row] for row in chosen])
    kept = FeatureCache(None if cache is None else cache / f"{options.name}-{key}")
    found = kept.find(set(digests))
    # Of images that are there twice, one is encoded.
    missing = list({d: row for row, d in enumerate(digests) if d not in found}.values())
    if missing:
        with _one_thread():
            encoder = blended_encoder(options, seed)
            if len(chosen):
                batches = _batches(pictures, evenly(chosen, BATCH), options.size, "statistics")
                recalculate_statistics(encoder, batches)
            for start in range(0, len(missing), CHUNK):
                rows = missing[start : start + CHUNK]
                about = f"encoding {start + len(rows)} of {len(missing)}"
                features = _encode(encoder, pictures, rows, options.size, about)
                some = [digests[row] for row in rows]
                kept.keep(some, features)
                found |= dict(zip(some, features, strict=True))
    features = np.stack([found[digest] for digest in digests])
    return _standardised(features, train)


def rows_for_statistics(
    train: Int[np.ndarray, " train"], options: EncoderOptions, seed: int
) -> Int[np.ndarray, " chosen"]:
    """Rows of the images that batch norm's statistics are of, in random order.

    None where batch norm keeps the statistics that were blended; else 2,048 of the rows at most.
    """
    if not options.recalculated:
        return train[:0]
    return np.random.default_rng(seed).permutation(train)[:MOST_FOR_STATISTICS]


def _key(options: EncoderOptions, seed: int, for_statistics: Sequence[bytes]) -> str:
    """Name of everything that features depend on, besides the image."""
    parts = {
        "code": _CODE,
        "weights": WEIGHTS_SHA256,
        "versions": [version(p) for p in ("torch", "efficientnet-lite-pytorch", "pillow")],
        "options": options.model_dump(),
        "seed": seed,
        "statistics": [digest.hex() for digest in for_statistics],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _encode(
    encoder: nn.Module, pictures: Pictures, rows: Sequence[int], size: int, about: str
) -> Float[np.ndarray, "rows 1280"]:
    """Features of some images, in full batches: the last is filled up with its last image."""
    filled = [*rows, *[rows[-1]] * (-len(rows) % BATCH)]
    batches = np.split(np.array(filled), len(filled) // BATCH)
    features = np.empty((len(filled), WIDTH), dtype=np.float32)
    with torch.inference_mode():
        for number, batch in enumerate(_batches(pictures, batches, size, about)):
            features[number * BATCH : (number + 1) * BATCH] = encoder(batch).numpy()
    return features[: len(rows)]


def _batches(
    pictures: Pictures, batches: Sequence[np.ndarray], size: int, about: str
) -> Iterator[Tensor]:
    """Images as `[batch, 3, size, size]`; the next batch is made ready while one is used."""

    def ready(batch: np.ndarray) -> Tensor:
        images = np.stack([pictures.in_colour(int(row), size) for row in batch])
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    with ThreadPoolExecutor(READERS) as readers:
        waiting = [readers.submit(ready, batch) for batch in batches[:READERS]]
        total = sum(map(len, batches))
        with tqdm(total=total, desc=about, unit="image", disable=None) as bar:
            for number in range(len(batches)):
                images = waiting.pop(0).result()
                if number + READERS < len(batches):
                    waiting.append(readers.submit(ready, batches[number + READERS]))
                yield images
                bar.update(len(images))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _standardised(
    features: Float[np.ndarray, "images features"], train: Int[np.ndarray, " train"]
) -> Float[np.ndarray, "images features"]:
    """Mean 0 and variance 1 over training images; 0 where a feature hardly varies in them."""
    mean = features[train].mean(axis=0, dtype=np.float64)
    spread = features[train].std(axis=0, dtype=np.float64)
    varies = spread > 1e-3 * np.sqrt(np.mean(spread**2))
    scale = np.divide(1.0, spread, where=varies, out=np.zeros_like(spread))
    features -= mean.astype(np.float32)
    features *= scale.astype(np.float32)
    return features
