"""The one table of stages: what each does, what it leaves, and what its results depend on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from rarenodes.study.params import Study

# Paths of the library that every stage depends on: the bottom of the import order, and the packages
# that find parameters, run notebooks and store results.
_BASE = ("folders.py", "randomness.py", "settings.py", "study")

# How DVC keeps an output: in its cache, in git (reports, which people read), in git as metrics, or as the
# study says of its tables of scores.
Kept = Literal["cache", "git", "metrics", "scores"]


@dataclass(frozen=True)
class Stage:
    """A stage of a study.

    Paths are relative to the study's folder; `{dataset}` and `{variant}` stand for the items.

    Attributes:
        notebook: file name of the notebook that shows it, where there is one.
        about: one line for the command's help.
        items: what the stage is run for: `dataset`, `variant`.
        folders: output folders by the name of the notebook's parameter.
        run: does the work without a notebook, given the study, the items and the folders; None
            where there is nothing but the notebook.
        inputs: outputs of earlier stages that it reads.
        reads_source: whether it reads the raw files of data sets.
        params: keys of `params.yaml` it depends on.
        library: packages and modules of the library its results depend on, beside `_BASE`.
        outputs: paths, and how DVC keeps them.

    """

    notebook: str | None
    about: str
    items: tuple[str, ...]
    folders: Mapping[str, str]
    run: Callable[..., object] | None
    params: tuple[str, ...]
    library: tuple[str, ...]
    outputs: Mapping[str, Kept]
    inputs: tuple[str, ...] = ()
    reads_source: bool = False

    def paths(self, study: Study, items: Mapping[str, str]) -> dict[str, Path]:
        """Output folders by parameter name, for some items."""
        return {
            name: study.folder / template.format(data=study.parameters.data, **items)
            for name, template in self.folders.items()
        }

    @property
    def modules(self) -> tuple[str, ...]:
        """Packages and modules of the library its results depend on."""
        return tuple(sorted((*_BASE, *self.library)))


def _lazily(module: str, name: str) -> Callable[..., object]:
    """A function of the library, imported when it is called.

    In the pipeline it is the notebook's kernel that calls it; this process need not wait for what
    it imports.
    """
    return lambda *given, **named: getattr(import_module(f"rarenodes.{module}"), name)(
        *given, **named
    )


def _prepare(study: Study, dataset: str, folder: Path, processed: Path) -> object:
    return _lazily("stages.prepare", "prepare")(study, dataset, processed)


_PREPARED = "{data}/processed/{dataset}"
_RESULTS = "results/{dataset}/{variant}"
# A training reads the stored data set; from which source it came is none of its concern.
_DATASET = "datasets/dataset.py"
# One may train along.
_ENCODERS = "datasets/encoders"

STAGES: Mapping[str, Stage] = {
    "prepare": Stage(
        notebook="01_prepare.ipynb",
        about="load a data set from its source",
        items=("dataset",),
        folders={"folder": "reports/prepare/{dataset}", "processed": _PREPARED},
        run=_prepare,
        params=("seed", "datasets.{dataset}"),
        library=("datasets", "loss", "pages", "scores", "stages/prepare.py"),
        reads_source=True,
        outputs={_PREPARED: "cache", "reports/prepare/{dataset}": "git"},
    ),
    # The executed notebook shows figures, and its scores come with the evaluation: a plot or a score
    # that changes trains nothing anew.
    "train": Stage(
        notebook="02_train.ipynb",
        about="train all seeds of a variant on a prepared data set",
        items=("dataset", "variant"),
        folders={"folder": _RESULTS},
        run=_lazily("stages.train", "train"),
        inputs=(_PREPARED,),
        params=("seed", "training", "datasets.{dataset}", "variants.{variant}"),
        library=(
            _DATASET, _ENCODERS, "loss", "side_by_side.py", "stages/train.py", "training",
        ),
        outputs={_RESULTS: "cache"},
    ),
    # Where a study asks for it: what `fit` leaves, of every variant. It trains anew, since a training
    # knows nothing of how features are made of new examples.
    "model": Stage(
        notebook=None,
        about="keep one run of a variant as a model, with its card",
        items=("dataset", "variant"),
        folders={"folder": "models/{dataset}/{variant}", "report": "reports/models/{dataset}/{variant}"},
        run=_lazily("stages.fit", "keep_model"),
        params=("seed", "training", "datasets.{dataset}", "variants.{variant}", "evaluation"),
        library=(
            "datasets", "loss", "models", "scores", "stages/fit.py", "stages/prepare.py", "training",
        ),
        outputs={"models/{dataset}/{variant}": "cache", "reports/models/{dataset}/{variant}": "git"},
        reads_source=True,
    ),
    "combine": Stage(
        notebook=None,
        about="combine the predictions of trained variants: the committees of a study",
        items=("dataset",),
        folders={"folder": "combined/{dataset}"},
        run=_lazily("stages.combine", "combine"),
        inputs=(_PREPARED, "results/{dataset}"),
        params=("seed", "datasets.{dataset}", "training", "variants", "committees", "evaluation"),
        library=(
            _DATASET, _ENCODERS, "inference/bootstrap.py", "inference/influence.py", "loss", "scores",
            "side_by_side.py",
            "stages/combine.py", "stages/member_results.py", "stages/train.py", "training",
        ),
        outputs={"combined/{dataset}": "cache"},
    ),
    "score": Stage(
        notebook=None,
        about="score every variant on a data set, node by node and pooled",
        items=("dataset",),
        folders={"folder": "scores/{dataset}"},
        run=_lazily("stages.score", "score"),
        inputs=(_PREPARED, "results/{dataset}", "combined/{dataset}"),
        params=("seed", "datasets.{dataset}", "training", "variants", "evaluation"),
        library=(_DATASET, "loss/hierarchy.py", "scores", "stages/score.py"),
        outputs={"scores/{dataset}": "scores"},
    ),
    "scores": Stage(
        notebook=None,
        about="put the scores of all data sets into one long table",
        items=(),
        folders={},
        run=_lazily("stages.score", "collect"),
        inputs=("scores",),
        params=("datasets",),
        library=("scores", "stages/score.py"),
        outputs={"reports/scores.csv": "git"},
    ),
    "evaluate": Stage(
        notebook="03_evaluate.ipynb",
        about="score and compare all variants on a data set",
        items=("dataset",),
        folders={"folder": "reports/evaluate/{dataset}", "training": "reports/train/{dataset}"},
        run=_lazily("stages.evaluate", "evaluate"),
        inputs=(_PREPARED, "results/{dataset}", "combined/{dataset}", "scores/{dataset}"),
        params=("seed", "datasets.{dataset}", "training", "variants", "evaluation"),
        library=(
            _DATASET, "inference", "loss/hierarchy.py", "pages", "scores", "side_by_side.py",
            "stages/committee_members.py", "stages/evaluate.py", "stages/material.py",
            "stages/member_results.py", "stages/score.py", "training/committee.py",
        ),
        outputs={
            "reports/evaluate/{dataset}/03_evaluate.ipynb": "git",
            "reports/evaluate/{dataset}/figures": "git",
            "reports/evaluate/{dataset}/tables": "git",
            "reports/evaluate/{dataset}/metrics.json": "metrics",
            "reports/train/{dataset}": "git",
        },
    ),
    "compare": Stage(
        notebook="04_compare.ipynb",
        about="compare variants over all data sets, with verdicts",
        items=(),
        folders={"folder": "reports/compare"},
        run=_lazily("stages.compare", "compare"),
        inputs=("reports/evaluate",),
        params=("seed", "datasets", "variants", "training", "evaluation"),
        library=("inference", "pages", "scores", "stages/compare.py"),
        outputs={"reports/compare": "git"},
    ),
    "audit": Stage(
        notebook="05_audit.ipynb",
        about="say what each switch of the released code does",
        items=(),
        folders={"folder": "reports/audit"},
        run=_lazily("stages.audit", "audit"),
        inputs=("{data}/processed", "results", "scores"),
        params=("seed", "datasets", "variants", "training", "evaluation", "audit"),
        library=(
            "datasets", "inference", "loss", "pages", "scores", "side_by_side.py", "stages/audit",
            "stages/material.py", "stages/score.py", "training",
        ),
        outputs={"reports/audit": "git"},
    ),
    "images": Stage(
        notebook="09_images.ipynb",
        about="compare gains by the quality of the encoder and the share of the data",
        items=(),
        folders={"folder": "reports/images"},
        run=_lazily("stages.images", "images"),
        inputs=("reports/evaluate",),
        params=("seed", "datasets", "variants", "evaluation"),
        library=("inference", "pages", "scores", "stages/compare.py", "stages/images.py"),
        outputs={"reports/images": "git"},
    ),
    "scale": Stage(
        notebook="06_scale.ipynb",
        about="compare all variants on a data set too large for the other comparisons",
        items=("dataset",),
        folders={"folder": "reports/scale/{dataset}"},
        run=_lazily("stages.scale", "scale"),
        inputs=(_PREPARED, "results/{dataset}", "scores/{dataset}", "../../reports/benches/tables/icd10cm.csv"),
        params=("seed", "datasets.{dataset}", "training", "variants", "evaluation"),
        library=(
            _DATASET, "inference", "loss/hierarchy.py", "pages", "scores", "stages/scale.py",
            "stages/score.py",
        ),
        outputs={"reports/scale/{dataset}": "git"},
    ),
    # Where a search ends depends on what is tried, not on how its results are shown.
    "tune": Stage(
        notebook=None,
        about="search for a variant's budget on a data set, decided on validation data",
        items=("dataset", "variant"),
        folders={"folder": "searches/{dataset}/{variant}"},
        run=_lazily("stages.tune", "tune"),
        inputs=(_PREPARED,),
        params=("seed", "tuning", "training", "datasets.{dataset}", "variants.{variant}"),
        library=(_DATASET, _ENCODERS, "loss", "scores", "stages/tune.py", "training"),
        outputs={"searches/{dataset}/{variant}": "cache"},
    ),
    "tuned": Stage(
        notebook="08_tune.ipynb",
        about="choose every variant's budget from its search, and write budgets.yaml",
        items=(),
        folders={"folder": "reports/tuned"},
        run=_lazily("stages.tuned", "choose_budgets"),
        inputs=("searches",),
        params=("datasets", "variants", "tuning", "training"),
        library=(
            _DATASET, "loss/hierarchy.py", "pages", "scores", "stages/tuned.py",
            "training/tuning.py",
        ),
        outputs={"reports/tuned": "git", "reports/search.csv": "git", "budgets.yaml": "git"},
    ),
    "gallery": Stage(
        notebook="07_gallery.ipynb",
        about="show what each loss and each weight does",
        items=(),
        folders={"folder": "reports/gallery"},
        run=None,
        params=("seed",),
        library=("loss", "pages", "stages/gallery.py", "training"),
        outputs={"reports/gallery": "git"},
    ),
    # In pipelines of studies whose folder does not hold the library; no study names it.
    "code": Stage(
        notebook=None,
        about="write digests of the code that each stage depends on",
        items=(),
        folders={},
        run=_lazily("stages.code", "write_code"),
        params=(),
        library=(
            "stages/code.py", "stages/sources.py", "stages/table.py", "training/checkpoints.py",
        ),
        outputs={"code.json": "git"},
    ),
}  # fmt: skip
