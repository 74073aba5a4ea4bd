"""What differs, at a glance: a matrix of verdicts."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from rarenodes.pages.plots.style import BLACK, BLUE, GREY, VERMILION, broken, entries_beside, style
from rarenodes.pages.prose import signed

# Sign and words of a verdict. Signs differ, so that the matrix reads without colour.
SIGNS: Mapping[str, tuple[str, str]] = {
    "better": ("▲", "clearly higher"),
    "worse": ("▼", "clearly lower"),
    "same": ("≈", "practically the same"),
    "unclear": ("?", "not decided"),
    "untestable": ("×", "could not be tested"),
}
_COLOURS = {"better": BLUE, "worse": VERMILION}
_FLAT = {"same": "#E4E4E4", "unclear": "white", "untestable": "white"}
_PALEST = 0.3  # share of colour
_MARGIN, _CELL, _ROW, _LEGEND = 2.4, 1.05, 0.42, 1.9  # inches
_DARK = 0.179  # luminance below which white has more contrast than black


def verdict_matrix(table: pd.DataFrame) -> Figure:
    """A cell for each variant and score: sign, size and certainty of a difference.

    The sign and the number say what was found; the deeper the colour, the larger is a clear difference
    beside the largest one in its column. The bar below is the interval, drawn on the column's own
    scale with its zero in the middle: a bar across the middle is a difference that may be none.

    Args:
        table: a row per cell: `variant`, `label` of the score, `difference`, `lower`, `upper` (NaN
            where there is none), `verdict` (`better`, `worse`, `same`, `unclear`, `untestable`); a
            panel for each `dataset`, where there is such a column. Rows and columns come in the
            order of their first appearance. Pairs that are not in the table stay empty.

    Raises:
        ValueError: a verdict of another name, or two rows for one cell.

    """
    unknown = sorted(set(table["verdict"]) - set(SIGNS))
    if unknown:
        raise ValueError(f"verdict {unknown[0]!r}: expected one of {', '.join(SIGNS)}")
    if "dataset" not in table:
        table = table.assign(dataset="")
    repeated = table.duplicated(["dataset", "variant", "label"])
    if repeated.any():
        row = table[repeated].iloc[0]
        raise ValueError(f"two rows for {row['variant']}, {row['label']} on {row['dataset']!r}")
    datasets, variants, labels = (
        list(dict.fromkeys(table[name])) for name in ("dataset", "variant", "label")
    )
    with style():
        figure, axes = plt.subplots(
            len(datasets) or 1,
            1,
            figsize=(
                _MARGIN + _CELL * len(labels),
                1.1 + _ROW * len(variants) * (len(datasets) or 1),
            ),
            squeeze=False,
        )
        if not datasets:
            axes[0, 0].text(0, 0.5, "There is nothing to compare.")
            axes[0, 0].axis("off")
            return figure
        scales = table.groupby("label")[["difference", "lower", "upper"]].agg(
            lambda column: column.abs().max()
        )
        for axis, dataset in zip(axes[:, 0], datasets, strict=True):
            _frame(axis, dataset, variants, labels, first=dataset == datasets[0])
            for row in table[table["dataset"] == dataset].itertuples():
                column, line = labels.index(row.label), variants.index(row.variant)
                scale = scales.loc[row.label]
                _draw_cell(axis, column, line, row, scale["difference"], scale.max())
        shown = [verdict for verdict in SIGNS if (table["verdict"] == verdict).any()]
        figure.legend(
            handles=[_key(verdict) for verdict in shown],
            loc="outside lower center",
            ncols=entries_beside(figure, len(shown), _LEGEND),
            fontsize=8.5,
        )
    return figure


def _frame(axis: Axes, title: str, variants: list[str], labels: list[str], first: bool) -> None:
    axis.set_xlim(-0.5, len(labels) - 0.5)
    axis.set_ylim(len(variants) - 0.5, -0.5)
    axis.set_yticks(range(len(variants)), variants)
    names = [broken(label, 13) for label in labels]
    axis.set_xticks(range(len(labels)), names if first else [""] * len(labels), fontsize=8.5)
    axis.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    if title:
        axis.set_title(title, loc="left", fontweight="bold")


def _draw_cell(axis: Axes, column: int, line: int, row, largest: float, scale: float) -> None:
    colour = cell_colour(row.verdict, row.difference, largest)
    axis.add_patch(
        Rectangle(
            (column - 0.48, line - 0.46),
            0.96,
            0.92,
            facecolor=colour,
            edgecolor=GREY,
            linewidth=0.5,
            hatch="////" if row.verdict == "untestable" else None,
        )
    )
    ink = "white" if _luminance(colour) < _DARK else BLACK
    sign = SIGNS[row.verdict][0]
    number = "" if np.isnan(row.difference) else f" {signed(row.difference)}"
    weight = "bold" if row.verdict in _COLOURS else "normal"
    axis.text(
        column,
        line - 0.1,
        f"{sign}{number}",
        ha="center",
        va="center",
        fontsize=8,
        color=ink,
        fontweight=weight,
    )
    if not (np.isnan(row.lower) or np.isnan(row.upper)) and scale > 0:
        low, high = (column + 0.44 * bound / scale for bound in (row.lower, row.upper))
        axis.plot([low, high], [line + 0.29] * 2, color=ink, linewidth=2, solid_capstyle="butt")
        axis.plot([column] * 2, [line + 0.2, line + 0.38], color=ink, linewidth=0.8)


def cell_colour(verdict: str, difference: float, largest: float) -> tuple[float, float, float]:
    """Red, green and blue of a cell: paler where a clear difference is small beside the largest."""
    if verdict not in _COLOURS:
        return to_rgb(_FLAT[verdict])
    share = _PALEST + (1 - _PALEST) * (abs(difference) / largest if largest > 0 else 0)
    red, green, blue = (1 - share + share * part for part in to_rgb(_COLOURS[verdict]))
    return red, green, blue


def _luminance(colour: tuple[float, float, float]) -> float:
    """Relative luminance of an sRGB colour, as WCAG 2 defines it."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour
    ]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def _key(verdict: str) -> Patch:
    sign, words = SIGNS[verdict]
    return Patch(
        facecolor=_COLOURS.get(verdict, _FLAT.get(verdict)),
        edgecolor=GREY,
        label=f"{sign} {words}",
        hatch="////" if verdict == "untestable" else None,
    )
