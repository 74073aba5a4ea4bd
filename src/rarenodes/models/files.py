"""A model as a folder that can be carried to another machine.

| file | what it holds |
|---|---|
| `model.json` | format, versions, hierarchy, names of nodes |
| `thresholds.safetensors` | evaluated nodes, tuned thresholds |
| `transformation.json`, `transformation.safetensors` | vocabulary, components, scales, categories |
| `networks/`, `linear.safetensors`, `forest.safetensors` | what was trained |
| `examples.safetensors` | training examples that are looked up, with their labels |
| `committee.safetensors`, `members/` | how much each member counts, and what each trained |
| `card.json`, `card.md` | the model card |
| `SHA256SUMS` | checksums of all, verified when the model is loaded |

Nothing in it is code, and nothing is unpickled: JSON, Markdown and safetensors alone.
"""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.numpy import load_file

from rarenodes.datasets import transformations
from rarenodes.datasets.transformations import load_transformation, save_transformation
from rarenodes.folders import (
    CHECKSUMS,
    UnreadableFile,
    empty_folder,
    read_json,
    reading,
    replace_folder,
    save_arrays,
    verify_checksums,
    write_checksums,
    writing,
)
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.models.card import card_text
from rarenodes.models.predictors import KINDS, files_of, load_predictor
from rarenodes.training.loop import choose_device

if TYPE_CHECKING:
    from rarenodes.models.model import Model

FORMAT = 1
MEND = "copy the model again, or fit it anew with `python -m rarenodes fit`"
_ALWAYS = ("model.json", "thresholds.safetensors", "card.json", "card.md", *transformations.FILES)


def library_range(written_by: str) -> tuple[str, str]:
    """The versions of the library that read a model: from the one that wrote it, below the next minor.

    Args:
        written_by: such as `0.3.1`.

    Returns:
        The first, and the first that no longer does: `("0.3.0", "0.4.0")`.

    """
    major, minor = _release(written_by)
    return f"{major}.{minor}.0", f"{major}.{minor + 1}.0"


def library_version() -> str:
    """The version of this library."""
    return version("rarenodes")


def save(model: "Model", folder: Path) -> None:
    """Write a model; a folder of that name is replaced as a whole if it holds a model.

    Raises:
        OSError: it cannot be written, or the folder holds something else.

    """
    check_free(folder)
    partial = folder.with_name(f"{folder.name}.partial")
    with writing(folder):
        empty_folder(partial)
        _write(model, partial)
        _share(partial)
        replace_folder(partial, folder)


def check_free(folder: Path) -> None:
    """Refuse to write a model over something else.

    Raises:
        FileExistsError: the folder holds something that is no model, or is a file.

    """
    if folder.is_dir() and (not any(folder.iterdir()) or (folder / "model.json").exists()):
        known = {*_ALWAYS, CHECKSUMS, *_files_there(folder)}
        known |= {f"{Path(name).parent}/{CHECKSUMS}" for name in known if "/" in name}
        files = (path for path in folder.rglob("*") if not path.is_dir())
        others = sorted({path.relative_to(folder).as_posix() for path in files} - known)
        if others:
            raise FileExistsError(
                f"{folder}: found {others[0]!r} beside a model, which would be lost: name another folder"
            )
    elif folder.exists():
        raise FileExistsError(
            f"{folder}: found something that is no model, which would be lost: name another folder"
        )


def _share(folder: Path) -> None:
    """Give all files the permissions of new files: those of safetensors are their owner's alone."""
    mode = (folder / "model.json").stat().st_mode
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _write(model: "Model", folder: Path) -> None:
    written_by = library_version()
    first, below = library_range(written_by)
    description = {
        "format": FORMAT,
        "library": {"written_by": written_by, "from": first, "below": below},
        "family": model.predictor.family,
        "predictor": model.predictor.description(),
        "edges": model.hierarchy.edges,
        "titles": model.titles,
    }
    thresholds = {f"threshold.{scope}": values for scope, values in model.thresholds.items()}
    arrays = {"evaluated": model.evaluated, **thresholds}
    _write_text(folder / "model.json", _as_json(description))
    _write_text(folder / "card.json", _as_json(model.card))
    _write_text(folder / "card.md", card_text(model.card))
    save_arrays(arrays, folder / _ALWAYS[1])
    save_transformation(model.transformation, folder)
    model.predictor.save(folder)
    write_checksums(folder, [*_ALWAYS, *_files(description)])


def load(folder: Path, device: str) -> dict[str, Any]:
    """The attributes of the model in a folder, its checksums verified.

    Raises:
        FileNotFoundError: there is no model.
        UnreadableFile: a file is missing, damaged or of another version of the library.

    """
    if not (folder / "model.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no model: expected a folder that `python -m rarenodes fit` wrote"
        )
    description = _description(folder)
    with reading(folder / "model.json", MEND):
        names = _files(description)
    _verify(folder, [*_ALWAYS, *names])
    with reading(folder / "model.json", MEND):
        hierarchy = Hierarchy(tuple(edge) for edge in description["edges"])
        titles = tuple(description["titles"])
        given = (description["family"], description["predictor"], MEND)
        predictor = load_predictor(folder, hierarchy, *given)
    predictor.to(choose_device(device))
    with reading(folder / _ALWAYS[1], MEND):
        arrays = load_file(folder / _ALWAYS[1])
        evaluated = arrays.pop("evaluated")
    return {
        "hierarchy": hierarchy,
        "transformation": load_transformation(folder, MEND),
        "predictor": predictor,
        "titles": titles,
        "evaluated": evaluated,
        "thresholds": {name.removeprefix("threshold."): a for name, a in arrays.items()},
        "card": read_json(folder / "card.json", MEND),
    }


def _description(folder: Path) -> dict[str, Any]:
    """What `model.json` says, if it is of a version that can be read: asked before anything else."""
    path = folder / "model.json"
    description = read_json(path, MEND)
    with reading(path, MEND):
        library, form = description["library"], description["format"]
        first, below = _release(library["from"]), _release(library["below"])
        here = library_version()
        if form != FORMAT or not first <= _release(here) < below:
            raise UnreadableFile(
                f"{path}: the model is of rarenodes {library['written_by']} (format {form}), found "
                f"rarenodes {here} (format {FORMAT}), expected {library['from']} or later, below "
                f"{library['below']}: install such a version, or fit the model anew"
            )
    return description


def _files(description: dict[str, Any]) -> list[str]:
    return list(files_of(description["family"], description["predictor"]))


def _files_there(folder: Path) -> list[str]:
    """Names that the model in a folder gives to what was trained; of all kinds where it cannot say."""
    try:
        return _files(read_json(folder / "model.json", MEND))
    except (OSError, ValueError, KeyError, TypeError):
        return [name for kind in KINDS.values() for name in kind.files]


def _verify(folder: Path, names: list[str]) -> None:
    path = folder / CHECKSUMS
    with reading(path, MEND):
        listed = {line.split("  ", 1)[-1] for line in path.read_text().splitlines()}
        if listed != set(names):
            differ = sorted(listed ^ set(names))
            raise ValueError(f"expected checksums of the model's files, differing: {differ[0]!r}")
    verify_checksums(folder, MEND)


def _release(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text)
    if found is None:
        raise ValueError(f"{text!r} is no version, expected one such as 0.1.0")
    return int(found[1]), int(found[2])


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
