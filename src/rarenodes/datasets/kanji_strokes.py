"""Characters of KanjiVG: which components they are built of, and drawing their strokes."""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from rarenodes.settings import Settings

# The drawings are this wide and high.
BOX = 109
# KanjiVG's own width of strokes.
STROKE_WIDTH = 3

_GROUP = "{http://www.w3.org/2000/svg}g"
_PATH = "{http://www.w3.org/2000/svg}path"
_START = re.compile(r"\s*[Mm]\s*(-?[\d.]+)[\s,]*(-?[\d.]+)")


class HandSettings(Settings):
    """How much another hand differs: standard deviations of normal draws.

    Attributes:
        shift: of each stroke's place, along and across, in units of which a drawing is 109 wide.
        turn: of each stroke's direction, about its start, in degrees.
        width: of the logarithm of the strokes' width, the same for a whole character.
        slant: of the whole character, in degrees.

    """

    shift: float = Field(1.5, ge=0)
    turn: float = Field(3.0, ge=0)
    width: float = Field(0.25, ge=0)
    slant: float = Field(6.0, ge=0, lt=30)


@dataclass(frozen=True)
class Character:
    """A character as KanjiVG has it.

    Attributes:
        name: the character itself.
        strokes: SVG paths, in the order of writing.
        components: every component drawn in it, with the indices of its strokes; the character
            itself is one where the file names it.
        nested: pairs (component, enclosing component): the nearest that encloses it.
        times: how often each component is drawn in it.

    """

    name: str
    strokes: tuple[str, ...]
    components: dict[str, frozenset[int]]
    nested: frozenset[tuple[str, str]]
    times: dict[str, int]


def read_character(path: Path) -> Character:
    """Read a file of KanjiVG; its name is the character's code point in hexadecimal digits."""
    strokes: list[str] = []
    components: dict[str, set[int]] = {}
    times: dict[str, int] = {}
    nested = set()
    # The strokes' groups are the first child; numbers of strokes, which follow, are not drawn.
    waiting: list[tuple[ElementTree.Element, tuple[str, ...]]] = [
        (ElementTree.parse(path).getroot()[0], ())
    ]
    while waiting:
        item, around = waiting.pop()
        if item.tag == _PATH:
            for component in around:
                components[component].add(len(strokes))
            strokes.append(item.attrib["d"])
        elif item.tag == _GROUP:
            marks = {key.rpartition("}")[2]: value for key, value in item.attrib.items()}
            component = marks.get("element")
            if component is not None:
                components.setdefault(component, set())
                # A component in several parts is drawn once; in itself, it is the same drawing.
                if marks.get("part", "1") == "1" and component not in around:
                    times[component] = times.get(component, 0) + 1
                if around and component not in around:
                    nested.add((component, around[-1]))
                around = (*around, component)
            waiting.extend((child, around) for child in reversed(item))
    return Character(
        name=chr(int(path.stem, 16)),
        strokes=tuple(strokes),
        components={name: frozenset(indices) for name, indices in sorted(components.items())},
        nested=frozenset(nested),
        times={name: times.get(name, 1) for name in sorted(components)},
    )


def draw(
    strokes: Sequence[str],
    size: int,
    hand: HandSettings | None = None,
    stream: np.random.Generator | None = None,
) -> UInt8[np.ndarray, "size size"]:
    """Draw strokes in white on black.

    Args:
        strokes: SVG paths in a box of 109 by 109.
        size: width and height of the image, in pixels.
        hand: how another hand varies them; None draws them as they are.
        stream: the random draws, where there is a hand.

    Returns:
        `[size, size]`, from 0 to 255.

    """
    # Imported here: who reads a prepared data set draws nothing.
    from PIL import Image
    from resvg_py import svg_to_bytes

    png = svg_to_bytes(
        svg_string=_svg(strokes, hand, stream),
        width=size,
        height=size,
        background="#000000",
        skip_system_fonts=True,
    )
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def _svg(
    strokes: Sequence[str], hand: HandSettings | None, stream: np.random.Generator | None
) -> str:
    width, slant = float(STROKE_WIDTH), 0.0
    paths = [f'<path d="{stroke}"/>' for stroke in strokes]
    if hand is not None:
        width *= float(np.exp(stream.normal(0, hand.width)))
        slant = float(stream.normal(0, hand.slant))
        paths = list(_varied(strokes, hand, stream))
    middle = BOX / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {BOX} {BOX}">'
        f'<g fill="none" stroke="#ffffff" stroke-width="{width:.3f}" '
        'stroke-linecap="round" stroke-linejoin="round" '
        # The middle stays where it is.
        f'transform="translate({middle} {middle}) skewX({slant:.3f}) '
        f'translate(-{middle} -{middle})">{"".join(paths)}</g></svg>'
    )


def _varied(
    strokes: Sequence[str], hand: HandSettings, stream: np.random.Generator
) -> Iterator[str]:
    for stroke in strokes:
        x, y = _START.match(stroke).groups()
        right, down = stream.normal(0, hand.shift, 2)
        turn = stream.normal(0, hand.turn)
        yield (
            f'<path d="{stroke}" '
            f'transform="translate({right:.3f} {down:.3f}) rotate({turn:.3f} {x} {y})"/>'
        )
