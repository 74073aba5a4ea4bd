"""Running stages: with their notebooks, as the pipeline does, or without."""

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from rarenodes.folders import empty_folder, exclusive, replace_folder
from rarenodes.settings import SettingsError
from rarenodes.stages.pipeline import NOTEBOOKS
from rarenodes.stages.table import STAGES
from rarenodes.study.params import Study


def run_stage(study: Study, name: str, items: dict[str, str]) -> None:
    """Run a stage as the pipeline does: its notebook where it has one.

    A second process that runs the same stage for the same items waits for the first.
    """
    stage = STAGES[name]
    if stage.notebook is None:
        run_without_notebook(study, name, items)
        return
    check_items(study, items)
    with _alone(study, name, items):
        _run_notebook(study, name, items)


def _run_notebook(study: Study, name: str, items: dict[str, str]) -> None:
    stage = STAGES[name]
    # jsonschema builds a grammar of IRIs if it can, which no notebook has: seconds at each start.
    sys.modules.setdefault("rfc3987_syntax", None)
    from rarenodes.study.notebook import run_notebook  # Jupyter is needed for this alone

    if study.params_file.name != "params.yaml":
        raise SettingsError(
            f"{study.params_file}: notebooks read the params.yaml of the study's folder: give the "
            "file this name, in a folder of its own if need be"
        )
    folders = {
        parameter: Path(os.path.relpath(path, study.folder))
        for parameter, path in stage.paths(study, items).items()
    }
    run_notebook(NOTEBOOKS / stage.notebook, items, folders, study.folder)
    _tidy(study, name, items)


def run_without_notebook(study: Study, name: str, items: dict[str, str]) -> None:
    """Run a stage's function; its folders are replaced only when it has ended well.

    They then hold no executed notebook and no figures: those of an earlier run would not show
    these results.
    """
    check_items(study, items)
    with _alone(study, name, items):
        _run_function(study, name, items)


def _run_function(study: Study, name: str, items: dict[str, str]) -> None:
    stage = STAGES[name]
    final = stage.paths(study, items)
    partial = {parameter: Path(f"{path}.partial") for parameter, path in final.items()}
    for path in partial.values():
        empty_folder(path)
    stage.run(study, *items.values(), **partial)
    for parameter, path in partial.items():
        replace_folder(path, final[parameter])
    _tidy(study, name, items)


def _alone(study: Study, name: str, items: dict[str, str]) -> AbstractContextManager[None]:
    item = "-".join([name, *items.values()])
    return exclusive(study.folder / "scratch" / "locks" / f"{item}.lock", item)


def check_items(study: Study, items: dict[str, str]) -> None:
    """Refuse names of data sets and variants that the study does not have."""
    for kind, name in items.items():
        {"dataset": study.dataset, "variant": study.variant}[kind](name)


def _tidy(study: Study, name: str, items: dict[str, str]) -> None:
    if name == "train":
        from rarenodes.stages.train import discard_checkpoints

        discard_checkpoints(study, items["dataset"], items["variant"])
