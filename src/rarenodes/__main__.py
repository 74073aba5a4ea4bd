"""The command line: every stage, with its notebook or without."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rarenodes.datasets import source_names
from rarenodes.datasets.dataset import Dataset
from rarenodes.folders import StageFailed, explained
from rarenodes.pages.tables import best_of_rare, compared_scores, seed_summary, write_table
from rarenodes.settings import SettingsError
from rarenodes.stages.combine import trained_for
from rarenodes.stages.pipeline import check_pipeline, stage_from_dvc, write_pipeline
from rarenodes.stages.run import check_items, run_stage, run_without_notebook
from rarenodes.stages.score import ScoreTables, score_variant
from rarenodes.stages.table import STAGES
from rarenodes.study.params import Study
from rarenodes.training.loop import TrainingError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; one clear line and exit code 1 on anything a person can mend."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=options.log)
    try:
        options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (SettingsError, StageFailed, TrainingError, ValueError, OSError, MemoryError) as error:
        print(f"error: {explained(error) or type(error).__name__}", file=sys.stderr)
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
    parser.set_defaults(log=sys.stdout)
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
    commands.add_parser(
        "stage", help="run the stage that DVC names in DVC_STAGE; what dvc.yaml calls"
    ).set_defaults(command=_run_stage_of_pipeline)
    _add_grid(commands)
    _add_replay(commands)
    commands.add_parser(
        "pipeline", help="write dvc.yaml, after data sets with files of their own were added"
    ).set_defaults(command=_write_pipeline)
    commands.add_parser(
        "offline-plots", help="let the pages that `dvc plots` writes need no network, in this clone"
    ).set_defaults(command=_make_plots_offline)
    prose = commands.add_parser(
        "prose", help="fill the blocks of a text that come from tables, or check them"
    )
    prose.add_argument("path", type=Path)
    prose.add_argument("--check", action="store_true", help="say which are out of date")
    prose.set_defaults(command=_prose)
    everything = commands.add_parser("run", help="prepare, train and print the scores")
    everything.add_argument("--datasets", nargs="+", help="only these")
    everything.add_argument("--variants", nargs="+", help="only these, or others of the catalogue")
    everything.add_argument("--table", metavar="STEM", help="also write all scores as a table")
    everything.set_defaults(command=_run_all)
    _add_models(commands)
    commands.add_parser("variants", help="list all variants, with sources").set_defaults(
        command=_variants
    )
    commands.add_parser("sources", help="list the sources of data").set_defaults(command=_sources)
    check = commands.add_parser("check", help="check the parameters, and the files of own data")
    check.add_argument("datasets", nargs="*", help="only these")
    check.set_defaults(command=_check)
    return parser


def _add_grid(commands: "argparse._SubParsersAction") -> None:
    grid = commands.add_parser(
        "grid",
        help="run a stage's items on a cluster, or on all cores, and record them in dvc.lock",
        description="Run those of a stage's items that `dvc repro` would run, on workers of Dask, and "
        "record them, so that `dvc repro` has nothing to do for them. All machines have to see the "
        "study's folder under the same path.",
    )
    grid.add_argument("items", nargs="*", help="names or patterns, toy-mcm or 'toy-*'; else all")
    of_stage = grid.add_mutually_exclusive_group()
    of_stage.add_argument("--stage", default="train", help="whose items (default: %(default)s)")
    of_stage.add_argument(
        "--all", action="store_true", help="all stages, one after the other: the whole study"
    )
    where = grid.add_mutually_exclusive_group()
    where.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a running scheduler of Dask, tcp://… or tls://…, or its scheduler file, ….json; "
        "certificates are set up in Dask's own configuration. Without it, workers are started here",
    )
    where.add_argument(
        "--workers",
        metavar="N",
        type=int,
        help="how many here (default: as many trainings as the cores have room for)",
    )
    grid.set_defaults(command=_grid)


def _add_replay(commands: "argparse._SubParsersAction") -> None:
    replay = commands.add_parser(
        "replay",
        help="after an edit that moves no number: show it on a part, and bring dvc.lock up to date",
        description="Make a part of a study with the library of an earlier commit and with today's, "
        "without notebooks. Only if all files are the same, byte by byte, dvc.lock names today's code.",
    )
    replay.add_argument(
        "items",
        nargs="*",
        help="DATASET-VARIANT, of one data set (default: the first, one variant of each kind)",
    )
    replay.add_argument(
        "--before", metavar="REVISION", default="HEAD", help="of git (default: %(default)s)"
    )
    replay.add_argument("--seeds", type=int, default=1, help="of each variant (default: 1)")
    replay.set_defaults(command=_replay)


def _add_models(commands: "argparse._SubParsersAction") -> None:
    fit = commands.add_parser("fit", help="train one run of a variant and keep it as a model")
    fit.add_argument("dataset")
    fit.add_argument("variant", help="a variant of networks or of linear models")
    fit.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="of the model")
    fit.add_argument("--seed", type=int, default=0, help="number of the run (default: 0)")
    fit.set_defaults(command=_fit)
    predict = commands.add_parser(
        "predict",
        help="predict with a model; needs no study",
        description="Predict with a model; needs no study. Writes CSV with the columns row (of the "
        "example, from 0), node, name, path and probability. Without a rule: all nodes above the "
        "global threshold.",
    )
    predict.add_argument("model", metavar="FOLDER", type=Path, help="that `fit` wrote")
    predict.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help=".csv, .parquet or .arff with the columns the model was fitted on, .txt with a text a "
        "line, or .npy with a matrix",
    )
    rule = predict.add_mutually_exclusive_group()
    rule.add_argument("--top", metavar="N", type=int, help="the N most probable nodes")
    rule.add_argument(
        "--confidence", metavar="P", type=float, help="the deepest nodes of probability P or more"
    )
    rule.add_argument(
        "--threshold",
        choices=("global", "depth", "node"),
        help="all nodes above thresholds tuned on validation data: one, one a depth, one a node",
    )
    predict.add_argument("--leaves", action="store_true", help="with --top: nodes without children")
    predict.add_argument("--column", metavar="NAME", help="of texts, if not called as in fitting")
    predict.add_argument(
        "--output", metavar="FILE", type=Path, help="CSV to write (default: the standard output)"
    )
    predict.set_defaults(command=_predict, log=sys.stderr)


def _run_stage(options: argparse.Namespace) -> None:
    items = {item: getattr(options, item) for item in STAGES[options.stage].items}
    run_without_notebook(Study(options.params), options.stage, items)


def _run_stage_notebook(options: argparse.Namespace) -> None:
    stage, study = STAGES[options.stage], Study(options.params)
    if len(options.items) != len(stage.items):
        raise SettingsError(f"{options.stage} needs: {' '.join(stage.items) or 'nothing more'}")
    run_stage(study, options.stage, dict(zip(stage.items, options.items, strict=True)))


def _run_stage_of_pipeline(options: argparse.Namespace) -> None:
    study = Study(options.params)
    name, items = stage_from_dvc(study, os.environ)
    check_pipeline(study)
    run_stage(study, name, items)


def _grid(options: argparse.Namespace) -> None:
    from rarenodes.stages.grid import run_grid, run_whole_grid  # Dask is needed for these alone

    if options.workers is not None and options.workers < 1:
        raise SettingsError(f"--workers: expected 1 or more, found {options.workers}")
    study, where = Study(options.params), (options.scheduler, options.workers)
    if options.all:
        if options.items:
            raise SettingsError(
                f"--all runs all items; leave {' '.join(options.items)} out, or --all"
            )
        run_whole_grid(study, *where)
    else:
        run_grid(study, options.stage, options.items, *where)


def _replay(options: argparse.Namespace) -> None:
    from rarenodes.stages.replay import replay  # DVC is needed for these alone

    done = replay(Study(options.params), options.before, options.items, options.seeds)
    print(
        f"{done.dataset} with {', '.join(done.variants)}: {done.files} files are the same as by the code of "
        f"{options.before}; {done.stages} stages of dvc.lock now name today's code"
    )


def _write_pipeline(options: argparse.Namespace) -> None:
    print(f"written: {write_pipeline(Study(options.params))}")


def _make_plots_offline(options: argparse.Namespace) -> None:
    from rarenodes.stages.dvc_plots import make_offline

    print(f"written: {make_offline(Study(options.params))}")


def _run_all(options: argparse.Namespace) -> None:
    study = Study(options.params)
    datasets = options.datasets or list(study.parameters.datasets)
    variants = options.variants or list(study.variants)
    for dataset in datasets:
        for variant in variants:
            check_items(study, {"dataset": dataset, "variant": variant})
    to_train = trained_for(study, variants)
    for dataset in datasets:
        run_without_notebook(study, "prepare", {"dataset": dataset})
        for variant in to_train:
            run_without_notebook(study, "train", {"dataset": dataset, "variant": variant})
        if set(to_train) != set(variants):
            run_without_notebook(study, "combine", {"dataset": dataset})
    scores, long = _scores(study, datasets, variants)
    print(compared_scores(long).to_markdown(index=False))
    for dataset, variant in best_of_rare(long).items():
        print(f"{dataset}: rare nodes are ranked best by {variant}")
        command = f"python -m rarenodes --params {options.params} fit {dataset} {variant}"
        print(f"to train it once more, and keep the model: {command} --output FOLDER")
    if options.table:
        write_table(scores, Path(options.table))


def _scores(
    study: Study, datasets: Sequence[str], variants: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pooled scores, a row per data set and variant; and all in long format."""
    summaries, long = [], []
    for name in datasets:
        dataset = Dataset.load(study.prepared(name))
        tables = ScoreTables({}, {})
        for variant in variants:
            tables.nodes[variant], tables.seeds[variant] = score_variant(
                study, dataset, name, variant
            )
        summaries.append(seed_summary(tables.seeds).assign(dataset=name))
        long += [tables.long(variant).assign(dataset=name) for variant in variants]
    summary = pd.concat(summaries)
    return summary[["dataset", *summary.columns.drop("dataset")]], pd.concat(long)


def _prose(options: argparse.Namespace) -> None:
    from rarenodes.pages.prose import check, refresh  # nothing else needs templates

    if options.check:
        faults = check(options.path)
        if faults:
            raise SettingsError("\n".join(faults))
    else:
        refresh(options.path)


def _fit(options: argparse.Namespace) -> None:
    from rarenodes.stages.fit import fit  # what a model needs, no other command does

    before = (options.output / "model.json").exists()
    model = fit(
        Study(options.params), options.dataset, options.variant, options.output, options.seed
    )
    rows = [[row["rarity"], row["nodes"], *(row[key] for key in _OF_RARITY)]
            for row in model.card["scores"]["by_rarity"]]  # fmt: skip
    table = pd.DataFrame(rows, columns=["training examples", "nodes", *_OF_RARITY.values()])
    print(table.to_markdown(index=False, floatfmt=".3f"))
    instead = ", in the place of the model that was there" if before else ""
    print(f"written: {options.output}{instead} (its card is {options.output / 'card.md'})")


# Scores of a kept model that `fit` prints, of nodes by rarity.
_OF_RARITY = {
    "average_precision": "average precision",
    "recall_half": "recall at 0.5",
    "f1_tuned": "F1 at the global threshold",
}


def _predict(options: argparse.Namespace) -> None:
    from rarenodes.stages.fit import predict

    written = predict(
        options.model,
        options.file,
        options.output,
        options.column,
        top=options.top,
        confidence=options.confidence,
        threshold=options.threshold,
        leaves=options.leaves,
    )
    lacking = ""
    if options.confidence is not None and written.at_top:
        lacking = (
            f"; of {written.at_top} nothing is known at that confidence but the top: "
            "--top 1 --leaves names the likeliest leaf"
        )
    elif written.without:
        lacking = f"; none for {written.without} of them"
    found = f"{written.nodes} nodes for {written.examples} examples{lacking}"
    if options.output is not None:
        print(f"written: {options.output}, {found}")
    elif lacking:
        print(found, file=sys.stderr)


def _variants(options: argparse.Namespace) -> None:
    print(Study(options.params).variant_table().to_markdown(index=False))


def _sources(options: argparse.Namespace) -> None:
    print("\n".join(source_names()))


def _check(options: argparse.Namespace) -> None:
    from rarenodes.stages.check import check_study  # the time it expects needs the trainings' code

    study = Study(options.params)
    parameters = study.parameters
    print(
        f"{options.params}: {len(parameters.datasets)} data sets, {len(study.variants)} "
        f"variants, {parameters.training.seeds} seeds of {parameters.training.members} members"
    )
    errors = 0
    for name, finding in check_study(study, options.datasets):
        print(f"{finding.level}: {name}: {finding.text}")
        errors += finding.level == "error"
    if errors:
        raise SettingsError(f"{errors} to mend, see the lines that begin with error")


if __name__ == "__main__":
    sys.exit(main())
