"""Replay: a small part of a study made by the code of an earlier commit and by today's, byte by byte.

An edit that moves no number still makes all results stale that depend on the edited file. Where they take
days, a replay shows on a part of them that nothing moves, and brings `dvc.lock` up to date. Both sides
run on this machine: bytes of another kind of processor would differ in any case.
"""

import filecmp
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from rarenodes.folders import StageFailed, empty_folder
from rarenodes.settings import SettingsError
from rarenodes.stages.grid_records import Records
from rarenodes.stages.pipeline import write_pipeline
from rarenodes.stages.sources import LIBRARY
from rarenodes.study.params import NO_PART_OF_A_LOSS, Study

log = logging.getLogger(__name__)

BEFORE, NOW = "before", "now"
# What is compared: all that stages leave, but for notebooks, which are not run.
COMPARED = ("data/processed", "results", "scores", "reports")


@dataclass(frozen=True)
class Replayed:
    """What came of a replay.

    Attributes:
        dataset: that was prepared, trained on and evaluated.
        variants: that were trained.
        files: how many files are the same, byte by byte.
        stages: of `dvc.lock`, whose code it now names as it is.

    """

    dataset: str
    variants: tuple[str, ...]
    files: int
    stages: int


def replay(study: Study, revision: str, items: Sequence[str] = (), seeds: int = 1) -> Replayed:
    """Make a part of a study twice, and record today's code in `dvc.lock` if the bytes agree.

    Args:
        study: in a git repository, in whose `dvc.lock` results are recorded.
        revision: of git: a commit with the code that the results were made with.
        items: `DATASET-VARIANT`, all of one data set; by default the first data set, with the baseline and
            one variant of each kind.
        seeds: of each.

    Raises:
        SettingsError: the items are not the study's, or of several data sets.
        StageFailed: the revision has no library, a side does not run, or files differ; `dvc.lock` is
            what it was.

    """
    dataset, variants = _chosen(study, items)
    scratch = study.folder.resolve() / "scratch" / "replay"
    empty_folder(scratch)
    sources = {BEFORE: _exported(revision, scratch), NOW: LIBRARY.parent}
    for side, source in sources.items():
        folder = scratch / side
        _write_part(study, folder, dataset, variants, seeds)
        log.info("%s: %s with %s", side, dataset, ", ".join(variants))
        _run(side, source, folder, _commands(dataset, variants))
    same, different = _compared(scratch / BEFORE, scratch / NOW)
    if different:
        shown = ", ".join(different[:5]) + (", …" if len(different) > 5 else "")
        raise StageFailed(
            f"{len(different)} of {len(same) + len(different)} files differ from those of {revision}: "
            f"{shown}; dvc.lock is what it was: run dvc repro"
        )
    write_pipeline(study)
    return Replayed(dataset, variants, len(same), Records(study.folder).name_todays_code())


def _chosen(study: Study, items: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The data set and its variants; the baseline is always among them."""
    known = {
        f"{dataset}-{variant}": (dataset, variant)
        for dataset in study.parameters.datasets
        for variant, settings in study.variants.items()
        if settings.committee is None
    }
    if unknown := [item for item in items if item not in known]:
        raise SettingsError(
            f"{unknown[0]!r}: expected a data set and a variant that is trained, such as "
            f"{next(iter(known))!r}"
        )
    datasets = {known[item][0] for item in items} or {next(iter(study.parameters.datasets))}
    if len(datasets) > 1:
        raise SettingsError(f"expected items of one data set, found {', '.join(sorted(datasets))}")
    baseline = study.parameters.evaluation.baseline
    chosen = [known[item][1] for item in items] or _one_of_each_kind(study)
    return datasets.pop(), tuple(dict.fromkeys([baseline, *chosen]))


def _one_of_each_kind(study: Study) -> list[str]:
    """The first of the variants that give the same settings, whatever the values."""
    kinds: dict[frozenset[str], str] = {}
    for name, settings in study.variants.items():
        if settings.committee is None:
            kinds.setdefault(frozenset(settings.model_fields_set - NO_PART_OF_A_LOSS), name)
    return list(kinds.values())


def _exported(revision: str, scratch: Path) -> Path:
    """The library as it was in a revision: the folder to import it from."""
    folder = scratch / "library"
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", revision, "--", "src"],
        cwd=LIBRARY.parents[1],
        capture_output=True,
        check=False,
    )
    if archive.returncode != 0:
        said = " ".join(archive.stderr.decode(errors="replace").split())
        raise StageFailed(f"{revision}: git has no library of it here: {said}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder / "src"


def _write_part(
    study: Study, folder: Path, dataset: str, variants: Sequence[str], seeds: int
) -> None:
    """A study of these alone, with the same settings, raw data and catalogue."""
    values = yaml.safe_load(study.params_file.read_text(encoding="utf-8"))
    own = values.get("variants")
    values["datasets"] = {dataset: values["datasets"][dataset]}
    values["variants"] = (
        list(variants) if isinstance(own, list) else {name: own[name] for name in variants}
    )
    values["training"]["seeds"] = seeds
    for settings in values["datasets"].values():
        settings.get("training", {}).pop("seeds", None)
    for part in ("committees", "audit", "stages", "scores_in_git"):
        values.pop(part, None)
    values["evaluation"].pop("contrasts", None)
    values["data"] = "data"
    values["catalogue"] = [os.path.relpath(path, folder) for path in study.catalogue_files]
    if study.budgets_file is not None:
        values["budgets"] = os.path.relpath(study.budgets_file, folder)
    (folder / "data").mkdir(parents=True)
    for path in study.data_folder.iterdir() if study.data_folder.is_dir() else ():
        if path.name != "processed":
            (folder / "data" / path.name).symlink_to(path.resolve())
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _commands(dataset: str, variants: Sequence[str]) -> list[list[str]]:
    trainings = [["train", dataset, variant] for variant in variants]
    return [["prepare", dataset], *trainings, ["score", dataset], ["evaluate", dataset], ["scores"]]


def _run(side: str, source: Path, folder: Path, commands: Sequence[Sequence[str]]) -> None:
    """Commands of a side's library one after the other, until one fails, in one process."""
    code = (
        f"import sys\nfrom rarenodes.__main__ import main\nsys.exit(any(map(main, {commands!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = " ".join((done.stderr.strip().splitlines() or ["no word of why"])[-1].split())
        raise StageFailed(f"replay, the library {side}: {said}")


def _compared(before: Path, now: Path) -> tuple[list[str], list[str]]:
    """Files that are the same on both sides, and files that are not, or are on one alone."""
    names = {
        path.relative_to(side).as_posix()
        for side in (before, now)
        for part in COMPARED
        for path in (side / part).rglob("*")
        if path.is_file()
    }
    same, different = [], []
    for name in sorted(names):
        both = (before / name).is_file() and (now / name).is_file()
        equal = both and filecmp.cmp(before / name, now / name, shallow=False)
        (same if equal else different).append(name)
    return same, different
