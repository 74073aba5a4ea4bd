"""The page of a data set's rare nodes: which were found, and what the others were taken for."""

import csv
from html import escape
from pathlib import Path

FILE = "rare_nodes.csv"

# Columns of the evaluation's table and what readers call them, first what a narrow screen shows.
COLUMNS = {
    "name": "node",
    "hits": "hits",
    "misses": "misses",
    "variant": "variant",
    "training_examples": "training examples",
    "test_examples": "test examples",
    "false_alarms": "false alarms",
    "taken_for": "misses taken for",
    "taken_for_share": "share of misses",
    "found": "an example that was found",
    "missed": "an example that was missed",
}
# Whole texts, of which a few lines are shown until somebody points at them.
EXAMPLES = {"found", "missed"}
ROUNDED = {"hits", "misses", "false_alarms", "taken_for_share"}

INTRODUCTION = """\
Rare nodes are those of 1 to 10 training examples; here are all with test examples, for the baseline and
for the variant that ranks rare nodes best on these very test examples. Hits, misses and false alarms are
means over seeds, at the threshold that was tuned on validation data (0.5 where there is none). A miss is
taken for the most probable node of the same level that was predicted wrongly, or for nothing; the column
names what most misses were taken for. Click a head to sort; search for words of nodes and texts.
"""


def page(path: Path, label: str) -> str:
    """The page, a table that sorts and can be searched in.

    Args:
        path: the evaluation's table.
        label: which data set it is about.

    Raises:
        ValueError: a column is missing.

    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    missing = [column for column in COLUMNS if rows and column not in rows[0]]
    if missing:
        raise ValueError(f"{path}: no column {missing[0]!r}: run the stage evaluate")
    head = "".join(f"<th>{escape(shown)}</th>" for shown in COLUMNS.values())
    body = "\n".join(
        f"<tr>{''.join(_cell(row, column) for column in COLUMNS)}</tr>" for row in rows
    )
    # One block of HTML: Markdown would take minutes for so many rows, and read marks into texts.
    return (
        f"# Which rare nodes were found? ({label})\n\n{INTRODUCTION}\n"
        f"[The table as a file](tables/{FILE})\n\n"
        "````{raw} html\n"
        '<div class="table-wrapper docutils container">\n'
        f'<table class="docutils align-default searchable"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table>\n</div>\n````\n"
    )


def _cell(row: dict[str, str], column: str) -> str:
    value = row[column]
    if column in ROUNDED and value:
        value = f"{float(value):.2f}".rstrip("0").rstrip(".")
    title = f' title="{escape(row["node"])}"' if column == "name" else ""
    # A blank line or a fence in a text would end the block.
    shown = escape(" ".join(value.split())).replace("`", "&#96;")
    if column in EXAMPLES:
        shown = f'<div class="clamped" tabindex="0">{shown}</div>'
    return f"<td{title}>{shown}</td>"
