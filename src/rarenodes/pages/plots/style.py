"""One look for all figures, and files that are the same bytes whenever they show the same thing.

Colours are Okabe and Ito's, told apart by colour-blind readers; everything also differs in marker or
line style, so that figures read in black and white.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

BLACK, BLUE, VERMILION, ORANGE, GREY = "#000000", "#0072B2", "#D55E00", "#E69F00", "#8C8C8C"
DASHES = ("-", "--", "-.", ":", (0, (9, 2, 1, 2, 1, 2)), (0, (2, 2)), (0, (1, 4)), (0, (10, 5)))

_STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.size": 9,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "savefig.dpi": 130,
    # Text stays text, and ids in the file depend on the figure alone.
    "svg.fonttype": "none",
    "svg.hashsalt": "rarenodes",
}


@contextmanager
def style() -> Iterator[None]:
    """The look, for figures made inside."""
    with mpl.rc_context(_STYLE):
        yield


def save_figure(figure: Figure, stem: Path) -> None:
    """Write `<stem>.svg` and `<stem>.png`, without dates or versions in them."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    with style(), warnings.catch_warnings():
        # Names in scripts that the font lacks are boxes; the warning would show where the font lies.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
        figure.savefig(stem.with_suffix(".png"), metadata={"Software": None})
    plt.close(figure)


def show(figure: Figure, stem: Path):
    """Save a figure and show it in a notebook, from the file just written."""
    from IPython.display import Image  # only notebooks have it

    width = round(figure.get_figwidth() * 100)
    save_figure(figure, stem)
    return Image(data=stem.with_suffix(".png").read_bytes(), width=min(width, 1000))


def entries_beside(figure: Figure, entries: int, inches: float) -> int:
    """How many of a legend's entries, each so wide, stand side by side below a figure."""
    return max(1, min(entries, int(figure.get_figwidth() / inches)))


def broken(name: str, width: int) -> str:
    """A name in lines of at most so many letters where it has a blank or an underscore to break at."""
    lines = [""]
    for part in re.split(r"(?<=_)|(?<= )", name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip(" ") for line in lines)


def in_font(text: str) -> str:
    """A text as figures can show it: letters that their font lacks by their code point, `U+6728`."""
    known = get_font(findfont("DejaVu Sans"))
    return "".join(c if known.get_char_index(ord(c)) else f"U+{ord(c):04X}" for c in text)


def dashes_of(names: Sequence, name) -> str | tuple:
    """Line style of a name by its place among all names."""
    return DASHES[list(names).index(name) % len(DASHES)]
