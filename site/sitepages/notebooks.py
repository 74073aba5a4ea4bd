"""Executed notebooks as pages: their code folded, their titles saying what they are about."""

import json
from pathlib import PurePosixPath
from typing import Any

from sitepages.markdown import relinked

# MyST-NB folds the source of cells with this tag; outputs stay.
FOLDED = "hide-input"
# Between the parts of a label.
SEPARATOR = " · "


def label(path: PurePosixPath) -> str:
    """What tells a report from others of its kind: its stage, data set and variant.

    `reports/train/icd10cm/mcm.ipynb` is `train · icd10cm · mcm`. Names that start with the number of
    their template say nothing more than their stage.
    """
    parts = path.parts[path.parts.index("reports") + 1 :]
    name = path.stem
    return SEPARATOR.join(parts[:-1] if name[0].isdigit() and parts[:-1] else (*parts[:-1], name))


def page(text: str, path: PurePosixPath, renew: Any) -> str:
    """An executed notebook for the site: the same outputs, code folded, a title of its own.

    Args:
        text: the notebook's JSON.
        path: its place in the repository.
        renew: see `sitepages.markdown.relinked`.

    Raises:
        ValueError: a notebook without a title, or a code cell that was not executed.

    """
    notebook = json.loads(text)
    cells = notebook["cells"]
    source = "".join(cells[0]["source"])
    if not source.startswith("# "):
        raise ValueError(f"{path}: expected a heading '# …' in its first cell: give it a title")
    title, _, rest = source.partition("\n")
    cells[0]["source"] = f"{title} ({label(path)})\n{rest}"
    for cell in cells:
        if cell["cell_type"] == "code":
            _fold(cell, path)
        else:
            cell["source"] = relinked("".join(cell["source"]), renew)
    return json.dumps(notebook, ensure_ascii=False)


def _fold(cell: dict[str, Any], path: PurePosixPath) -> None:
    if cell["execution_count"] is None and "".join(cell["source"]).strip():
        raise ValueError(f"{path}: a code cell was not executed: run its stage")
    tags = cell["metadata"].setdefault("tags", [])
    if FOLDED not in tags:
        tags.append(FOLDED)
