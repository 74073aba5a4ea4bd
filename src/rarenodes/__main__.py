"""The command line: every stage, with its notebook or without."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pandas as pd

from rarenodes.datasets import source_names
from rarenodes.folders import StageFailed, empty_folder, replace_folder
from rarenodes.pages.tables import seed_summary, write_table
from rarenodes.settings import SettingsError
from rarenodes.study.params import Study
from rarenodes.study.results import Results
from rarenodes.training.loop import TrainingError

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@dataclass(frozen=True)
class Stage:
    """A stage of the study.

    Attributes:
        notebook: file name of the notebook that shows it.
        about: one line for the command's help.
        items: what the stage is run for: `dataset`, `variant`.
        folders: output folders by parameter name, given the study and the items.
        run: does the work without a notebook, given the study, the items and the folders; None
            where there is nothing but the notebook.

    """

    notebook: str
    about: str
    items: tuple[str, ...]
    folders: Callable[..., dict[str, Path]]
    run: Callable[..., object] | None


def _lazily(module: str, name: str) -> Callable[..., object]:
    """A function of the library, imported when it is called.

    In the pipeline it is the notebook's kernel that calls it; this process need not wait for what
    it imports.
    """
    return lambda *given, **named: getattr(import_module(f"rarenodes.{module}"), name)(
        *given, **named
    )


STAGES = {
    "prepare": Stage(
        "01_prepare.ipynb",
        "load a data set from its source",
        ("dataset",),
        lambda study, dataset: {
            "folder": study.reports("prepare", dataset),
            "processed": study.prepared(dataset),
        },
        lambda study, dataset, folder, processed: _lazily("stages.prepare", "prepare")(
            study, dataset, processed
        ),
    ),
    "train": Stage(
        "02_train.ipynb",
        "train all seeds of a variant on a prepared data set",
        ("dataset", "variant"),
        lambda study, dataset, variant: {"folder": study.results(dataset, variant)},
        _lazily("stages.train", "train"),
    ),
    "evaluate": Stage(
        "03_evaluate.ipynb",
        "score and compare all variants on a data set",
        ("dataset",),
        lambda study, dataset: {
            "folder": study.reports("evaluate", dataset),
            "training": study.reports("train", dataset),
        },
        _lazily("stages.evaluate", "evaluate"),
    ),
    "compare": Stage(
        "04_compare.ipynb",
        "compare variants over all data sets, with verdicts",
        (),
        lambda study: {"folder": study.reports("compare")},
        _lazily("stages.compare", "compare"),
    ),
    "audit": Stage(
        "05_audit.ipynb",
        "say what each switch of the released code does",
        (),
        lambda study: {"folder": study.reports("audit")},
        _lazily("stages.audit", "audit"),
    ),
    "scale": Stage(
        "06_scale.ipynb",
        "compare all variants on a data set too large for the other comparisons",
        ("dataset",),
        lambda study, dataset: {"folder": study.reports("scale", dataset)},
        _lazily("stages.scale", "scale"),
    ),
    "gallery": Stage(
        "07_gallery.ipynb",
        "show what each loss and each weight does",
        (),
        lambda study: {"folder": study.reports("gallery")},
        None,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; one clear line and exit code 1 on anything a person can mend."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        options.command(options)
    except (SettingsError, StageFailed, TrainingError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rarenodes", description=__doc__)
    parser.add_argument(
        "--params", default="params.yaml", help="the study's parameters (default: %(default)s)"
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, stage in STAGES.items():
        if stage.run is None:
            continue
        command = commands.add_parser(name, help=stage.about)
        for item in stage.items:
            command.add_argument(item)
        command.set_defaults(command=_run_stage, stage=name)
    notebook = commands.add_parser("notebook", help="run a stage's notebook, as the pipeline does")
    notebook.add_argument("stage", choices=STAGES)
    notebook.add_argument("items", nargs="*", help="data set and variant, as the stage needs")
    notebook.set_defaults(command=_run_stage_notebook)
    everything = commands.add_parser("run", help="prepare, train and print the scores")
    everything.add_argument("--datasets", nargs="+", help="only these")
    everything.add_argument("--variants", nargs="+", help="only these, or others of the catalogue")
    everything.add_argument("--table", metavar="STEM", help="also write all scores as a table")
    everything.set_defaults(command=_run_all)
    commands.add_parser("variants", help="list all variants, with sources").set_defaults(
        command=_variants
    )
    commands.add_parser("sources", help="list the sources of data").set_defaults(command=_sources)
    commands.add_parser("check", help="check the parameters").set_defaults(command=_check)
    return parser


def _run_stage(options: argparse.Namespace) -> None:
    stage, study = STAGES[options.stage], Study(options.params)
    items = {item: getattr(options, item) for item in stage.items}
    _check_items(study, items)
    _without_notebook(stage, study, items)


def _without_notebook(stage: Stage, study: Study, items: dict[str, str]) -> None:
    """Run a stage's function; its folders are replaced only when it has ended well.

    They then hold no executed notebook and no figures: those of an earlier run would not show
    these results.
    """
    final = stage.folders(study, *items.values())
    partial = {name: Path(f"{path}.partial") for name, path in final.items()}
    for path in partial.values():
        empty_folder(path)
    stage.run(study, *items.values(), **partial)
    for name, path in partial.items():
        replace_folder(path, final[name])
    _tidy(stage, study, items)


def _run_stage_notebook(options: argparse.Namespace) -> None:
    from rarenodes.study.notebook import run_notebook  # Jupyter is needed for this alone

    stage, study = STAGES[options.stage], Study(options.params)
    if study.params_file.name != "params.yaml":
        raise SettingsError(
            f"{options.params}: notebooks read the params.yaml of the study's folder: give the file "
            "this name, in a folder of its own if need be"
        )
    if len(options.items) != len(stage.items):
        raise SettingsError(f"{options.stage} needs: {' '.join(stage.items) or 'nothing more'}")
    items = dict(zip(stage.items, options.items, strict=True))
    _check_items(study, items)
    folders = {
        name: Path(os.path.relpath(path, study.folder))
        for name, path in stage.folders(study, *items.values()).items()
    }
    run_notebook(NOTEBOOKS / stage.notebook, items, folders, study.folder)
    _tidy(stage, study, items)


def _run_all(options: argparse.Namespace) -> None:
    study = Study(options.params)
    datasets = options.datasets or list(study.parameters.datasets)
    variants = options.variants or list(study.variants)
    for dataset in datasets:
        _check_items(study, {"dataset": dataset})
        for variant in variants:
            _check_items(study, {"variant": variant})
    for dataset in datasets:
        _without_notebook(STAGES["prepare"], study, {"dataset": dataset})
        for variant in variants:
            _without_notebook(STAGES["train"], study, {"dataset": dataset, "variant": variant})
    scores = _summary(study, datasets, variants)
    shown = [
        "micro_average_precision",
        "micro_average_precision_spread",
        "macro_average_precision_with_positives",
        "macro_recall_all_half",
        "macro_f1_all_half",
    ]
    print(scores[shown].to_markdown(floatfmt=".4f"))
    if options.table:
        write_table(scores.reset_index(), Path(options.table))


def _summary(study: Study, datasets: Sequence[str], variants: Sequence[str]) -> pd.DataFrame:
    """Pooled scores, a row per data set and variant."""
    tables = [
        seed_summary({v: Results.load(study.results(name, v)).seeds for v in variants}).assign(
            dataset=name
        )
        for name in datasets
    ]
    return pd.concat(tables).set_index(["dataset", "variant"])


def _check_items(study: Study, items: dict[str, str]) -> None:
    for kind, name in items.items():
        {"dataset": study.dataset, "variant": study.variant}[kind](name)


def _tidy(stage: Stage, study: Study, items: dict[str, str]) -> None:
    if stage is STAGES["train"]:
        _lazily("stages.train", "discard_checkpoints")(study, items["dataset"], items["variant"])


def _variants(options: argparse.Namespace) -> None:
    print(Study(options.params).variant_table().to_markdown(index=False))


def _sources(options: argparse.Namespace) -> None:
    print("\n".join(source_names()))


def _check(options: argparse.Namespace) -> None:
    study = Study(options.params)
    parameters = study.parameters
    print(
        f"{options.params}: {len(parameters.datasets)} data sets, {len(study.variants)} "
        f"variants, {parameters.training.seeds} seeds of {parameters.training.members} members"
    )


if __name__ == "__main__":
    sys.exit(main())
