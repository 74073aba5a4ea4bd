"""A study's `dvc.yaml`, written from the table of stages and the study's parameters.

Commands name no data set and no variant: names come from files, and a shell would run what stands
in them. DVC tells each command which stage it is (`DVC_STAGE`), and the name is looked up among the
study's own.
"""

import os
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from rarenodes.datasets import raw_files_of
from rarenodes.folders import write_whole
from rarenodes.settings import SettingsError, unknown_name
from rarenodes.stages.code import CODE_FILE, code_files
from rarenodes.stages.dvc_plots import TEMPLATE_FILES, plots_of, templates
from rarenodes.stages.sources import LIBRARY
from rarenodes.stages.table import STAGES, Kept, Stage
from rarenodes.study.params import Study

NOTEBOOKS = LIBRARY.parents[1] / "notebooks"

COMMAND = "python -m rarenodes stage"
_HEADER = """\
# Written by `python -m rarenodes pipeline` from the table in rarenodes.stages.table and the
# parameters beside this file; a test says when it is out of date. Every stage lists the packages of
# the library that its results depend on, or its entry in code.json, which has their digests.
# `persist` keeps earlier results until a stage ended well.
# Which data set and variant a command is for, it learns from DVC (DVC_STAGE): names reach no shell.

"""


def pipeline_text(study: Study) -> str:
    """The `dvc.yaml` of a study, as text.

    Raises:
        SettingsError: a stage that there is not, a folder of data that DVC cannot keep, or committees
            without a catalogue.

    """
    if Path(study.parameters.data).is_absolute() or ".." in Path(study.parameters.data).parts:
        raise SettingsError(
            f"{study.params_file}: data: expected a folder inside the study's, which DVC can keep, "
            f"found {study.parameters.data!r}; say data: data"
        )
    for name in study.parameters.stages:
        if name not in STAGES:
            raise unknown_name("stage", name, STAGES, f"{study.params_file}: stages")
    if study.defines_variants and study.parameters.committees:
        raise SettingsError(
            f"{study.params_file}: committees: a pipeline's are defined in its catalogue, found "
            "variants defined here: move them to a file of their own, name it under `catalogue`, and "
            "list under `variants` those to train"
        )
    names = study.parameters.stages if _holds_library(study) else ["code", *study.parameters.stages]
    stages = {name: _definition(study, name, STAGES[name]) for name in names}
    text = _yaml({"stages": stages})
    for name in list(stages)[1:]:
        text = text.replace(f"\n  {name}:\n", f"\n\n  {name}:\n", 1)
    plots = plots_of(study)
    return _HEADER + text + (f"\n{_yaml({'plots': plots})}" if plots else "")


def _yaml(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def write_pipeline(study: Study) -> Path:
    """Write a study's `dvc.yaml`, and the templates of its plots; the path of the first."""
    path = study.folder / "dvc.yaml"
    write_whole(path, pipeline_text(study))
    if plots_of(study):
        for name, text in templates().items():
            write_whole(study.folder / TEMPLATE_FILES / name, text)
    return path


def stage_from_dvc(study: Study, environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The stage and the items that DVC runs, looked up among the study's own names.

    Raises:
        SettingsError: not run by DVC, or a name that is none of the study's.

    """
    address = environment.get("DVC_STAGE", "")
    name, _, suffix = address.rpartition(":")[2].partition("@")
    if name not in STAGES:
        raise SettingsError(
            f"DVC_STAGE: expected a stage of {', '.join(STAGES)}, found {address!r}: "
            "`python -m rarenodes stage` is what dvc.yaml calls; run `dvc repro` instead"
        )
    names = {"dataset": list(study.parameters.datasets), "variant": list(study.variants)}
    items = STAGES[name].items
    for values in product(*(names[item] for item in items)):
        if "-".join(values) == suffix:
            return name, dict(zip(items, values, strict=True))
    raise SettingsError(f"{study.params_file}: stage {address!r} is for no item of this study")


def check_pipeline(study: Study) -> None:
    """Refuse to run a pipeline that is not the one its parameters ask for.

    It might not list a raw file of the study's own data, say, whose edits would be overlooked. A
    `dvc.yaml` that somebody wrote by hand is theirs.

    Raises:
        SettingsError: `dvc.yaml` was written for other parameters.

    """
    path = study.folder / "dvc.yaml"
    written = path.read_text()
    if written.startswith(_HEADER) and written != pipeline_text(study):
        raise SettingsError(
            f"{path}: written for other parameters than those of {study.params_file}: run "
            "`python -m rarenodes pipeline`"
        )


def _holds_library(study: Study) -> bool:
    """Whether the library is below the study's folder, where DVC ignores what compiling leaves."""
    return LIBRARY.is_relative_to(study.folder.resolve())


def _raw_files(study: Study) -> list[str]:
    """Files that the study's own data are read from, relative to its folder."""
    found = {
        path
        for settings in study.parameters.datasets.values()
        for path in raw_files_of(settings.source, settings.options, study.data_folder)
    }
    return sorted(_relative(path, study) for path in found)


def _definition(study: Study, name: str, stage: Stage) -> dict[str, Any]:
    axes = {"dataset": "${datasets}", "variant": "${variants}"}
    definition: dict[str, Any] = {}
    if stage.items:
        definition["matrix"] = {item: axes[item] for item in stage.items}
    definition["cmd"] = COMMAND
    code_params, code_deps = _code(study, name)
    params = [*_params(study, stage), *code_params]
    if params:
        definition["params"] = params
    definition["deps"] = [
        _filled(study, stage, template)
        for template in stage.inputs
        if study.parameters.committees or not template.startswith("combined")
    ]
    if stage.notebook is not None:
        definition["deps"].append(_relative(NOTEBOOKS / stage.notebook, study))
    definition["deps"] += code_deps
    if stage.reads_source:
        definition["deps"] += _raw_files(study)
    for group, kinds in {"outs": ("cache", "git", "scores"), "metrics": ("metrics",)}.items():
        entries = [
            _output(study, stage, path, kept)
            for path, kept in stage.outputs.items()
            if kept in kinds
        ]
        if entries:
            definition[group] = entries
    return definition


def _code(study: Study, name: str) -> tuple[list[Any], list[str]]:
    """What stands for the code that a stage depends on: keys of `code.json`, and files."""
    if name == "code":
        return [], [_relative(LIBRARY / file, study) for file in code_files(study)]
    if _holds_library(study):
        return [], [_relative(LIBRARY / module, study) for module in STAGES[name].modules]
    return [{CODE_FILE: [name]}], []


def _params(study: Study, stage: Stage) -> list[Any]:
    """Keys in `params.yaml`, and a variant's in the catalogue where only its name stands there.

    Stages after the training need the names alone: another setting of a variant is another result.
    """
    keys = [_filled(study, stage, key) for key in stage.params]
    if study.parameters.committees and "variants" in keys and "committees" not in keys:
        keys.append("committees")
    if study.budgets_file is not None and "training" in keys:
        keys.append({_relative(study.budgets_file, study): [_budgets_key(study, stage)]})
    of_variant = "variants.${item.variant}"
    if study.defines_variants or of_variant not in keys:
        return keys
    (catalogue,) = study.catalogue_files
    keys.remove(of_variant)
    return [*keys, {_relative(catalogue, study): [of_variant]}]


def _budgets_key(study: Study, stage: Stage) -> str:
    """The budgets that a stage's results depend on: the items' own, where all items have some.

    DVC refuses a key that is not there: one variant without a budget of its own makes all depend on
    their data set's, and one data set without budgets makes all depend on the whole.
    """
    items, untuned = list(stage.items), set(study.parameters.untuned)
    variants = study.variants.values()
    borrowed = any(v.budget_of is not None or v.networks_of is not None for v in variants)
    if borrowed or untuned & set(study.variants):
        items = [item for item in items if item != "variant"]
    trained = {name for name, variant in study.variants.items() if variant.committee is None}
    if untuned & set(study.parameters.datasets) or untuned >= trained:
        items = []
    return ".".join(["budgets", *(f"${{item.{item}}}" for item in items)])


def _output(study: Study, stage: Stage, template: str, kept: Kept) -> dict[str, Any]:
    path = _filled(study, stage, template)
    if kept == "scores":
        kept = "git" if study.parameters.scores_in_git else "cache"
    options = {"persist": True} if kept == "cache" else {"cache": False, "persist": True}
    return {path: options}


def _filled(study: Study, stage: Stage, template: str) -> str:
    items = {item: f"${{item.{item}}}" for item in stage.items}
    return template.format(data=study.parameters.data, **items)


def _relative(path: Path, study: Study) -> str:
    return Path(os.path.relpath(path, study.folder)).as_posix()
