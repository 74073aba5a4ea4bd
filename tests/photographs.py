"""A folder of images like photographs, with labels in five levels, and images that are not usable."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

# group > family > genus > species, below one root: five levels.
LEVELS = (2, 2, 2, 2)


def edges() -> list[tuple[str, str]]:
    """Pairs (child, parent) of a tree of 1 + 2 + 4 + 8 + 16 nodes."""
    found, above = [], ["life"]
    for rank, children in zip(("group", "family", "genus", "species"), LEVELS, strict=True):
        below = []
        for parent in above:
            for child in range(children):
                name = f"{rank} {'' if parent == 'life' else parent.split()[1]}{child}"
                found.append((name, parent))
                below.append(name)
        above = below
    return found


def photograph(path: list[int], stream: np.random.Generator) -> Image.Image:
    """Noise with a disc: its colour, size, place and ground tell the steps of the path."""
    width, height = (int(side) for side in stream.integers(40, 90, 2))
    y, x = np.mgrid[:height, :width]
    colour = np.array([200, 40, 40] if path[0] else [40, 60, 200])
    ground = 40 if path[1] else 160
    radius = min(width, height) * (0.4 if path[2] else 0.2)
    centre = 0.35 if path[3] else 0.65
    disc = (x - centre * width) ** 2 + (y - 0.5 * height) ** 2 < radius**2
    pixels = np.where(disc[..., None], colour, ground) + stream.normal(0, 20, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_folder(root: Path, images: int, seed: int = 0) -> list[dict[str, str]]:
    """Write `edges.csv`, `photos/` and `photos.csv`; the rows of the latter.

    A fifth of the images is labelled half-way, at the genus; some have two labels.
    """
    stream = np.random.default_rng(seed)
    (root / "photos" / "deeper").mkdir(parents=True)
    with (root / "edges.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("child", "parent"), *edges()])
    rows = []
    for number in range(images):
        path = [int(step) for step in stream.integers(0, 2, 4)]
        digits = "".join(map(str, path))
        labels = [f"species {digits}"] if number % 5 else [f"genus {digits[:3]}"]
        if number % 7 == 0:
            labels.append(f"family {digits[:2]}")
        name = f"{'deeper/' if number % 2 else ''}{number}.{'png' if number % 3 else 'jpg'}"
        photograph(path, stream).save(root / "photos" / name)
        rows.append({"image": name, "labels": ";".join(labels)})
    write_table(root, rows)
    return rows


def write_table(root: Path, rows: list[dict[str, str]]) -> None:
    """Write `photos.csv`."""
    with (root / "photos.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_bad_images(folder: Path) -> dict[str, str]:
    """One image of each kind that cannot be used, and what is said of it."""
    stream = np.random.default_rng(1)
    good = photograph([1, 0, 1, 0], stream)
    good.convert("CMYK").save(folder / "print.jpg")
    deep = (np.asarray(good.convert("L")).astype(np.uint16) << 8).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    good.resize((9, 40)).save(folder / "tiny.png")
    good.save(folder / "whole.png")
    content = (folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "whole.png").unlink()
    (folder / "text.jpg").write_text("no image")
    return {
        "print.jpg": "'print.jpg': found the colours of print (CMYK), expected RGB or grey",
        "deep.png": "'deep.png': found 16 bits or more a channel (mode I;16), expected 8",
        "tiny.png": "'tiny.png': found 9 × 40 pixels, expected at least 16 each way",
        "cut.png": "'cut.png': cannot be decoded (",
        "text.jpg": "'text.jpg': cannot be decoded (no format that Pillow knows): fetch it again",
        "none.jpg": "'none.jpg': no such file: correct the path",
    }
