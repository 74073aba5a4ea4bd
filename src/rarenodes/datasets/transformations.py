"""Fitted transformations as files: how a model makes features of new texts or columns."""

import json
from pathlib import Path

from safetensors.numpy import load_file

from rarenodes.datasets.columns import ColumnTransformation, PlainFeatures
from rarenodes.datasets.text import TextTransformation
from rarenodes.folders import read_json, reading, save_arrays, writing

Fitted = TextTransformation | ColumnTransformation | PlainFeatures

FILES = ("transformation.json", "transformation.safetensors")
_KINDS = {kind.kind: kind for kind in (TextTransformation, ColumnTransformation, PlainFeatures)}


def save_transformation(transformation: Fitted, folder: Path) -> None:
    """Write `transformation.json` and `transformation.safetensors`.

    Raises:
        OSError: they cannot be written.

    """
    description = {"kind": transformation.kind, **transformation.description()}
    with writing(folder):
        text = json.dumps(description, indent=1, ensure_ascii=False)
        (folder / FILES[0]).write_text(text + "\n", encoding="utf-8")
        save_arrays(transformation.arrays(), folder / FILES[1])


def load_transformation(folder: Path, mend: str) -> Fitted:
    """Read what `save_transformation` wrote.

    Args:
        folder: where it lies.
        mend: what to do about a damaged file, for the message.

    Raises:
        UnreadableFile: a file is missing or damaged, or the two are not of the same transformation.

    """
    description = read_json(folder / FILES[0], mend)
    with reading(folder / FILES[1], mend):
        arrays = load_file(folder / FILES[1])
    with reading(folder / FILES[0], mend):
        return _KINDS[description["kind"]].restored(description, arrays)
