"""A study as its `params.yaml` describes it: typed settings, every path, and provenance."""

import hashlib
import json
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import Field

from rarenodes.datasets import options_of, source_names
from rarenodes.datasets.dataset import Dataset
from rarenodes.settings import Settings, SettingsError, read_settings, unknown_name
from rarenodes.training import Budget
from rarenodes.variants import VariantSettings

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
PACKAGES = ("torch", "numba", "numpy", "scipy", "pandas", "scikit-learn", "simple-icd-10-cm")


class DatasetSettings(Settings):
    """One data set of a study.

    Attributes:
        about: one line for readers.
        source: where it comes from, a name `rarenodes.datasets` knows.
        train_fraction: share of the training examples to keep.
        options: options of the source.
        training: training settings that differ from the study's for this data set.

    """

    about: str
    source: str
    train_fraction: float = Field(default=1.0, gt=0, le=1)
    options: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)


class TrainingSettings(Budget):
    """A training budget, and how often it is spent.

    Attributes:
        seeds: number of runs that differ in their random streams only.
        threads: of PyTorch on the CPU; fixed, because sums depend on it in the last bits.
        keep_probabilities: whether to store each seed's test probabilities; the paired bootstrap
            needs them.
        keep_ensembles: whether to store each seed's networks.

    """

    seeds: int = Field(gt=0)
    threads: int = Field(default=2, gt=0)
    keep_probabilities: bool = True
    keep_ensembles: bool = False


class EvaluationSettings(Settings):
    """How results are compared.

    Attributes:
        baseline: the variant all others are compared with.
        contrasts: further comparisons, variant: reference; for what a term adds to another.
        resamples: bootstrap resamples of the test examples.
        confidence: coverage of intervals.
        equivalence: differences in a score up to this size count as practically none.

    """

    baseline: str
    contrasts: dict[str, str] = Field(default_factory=dict)
    resamples: int = Field(default=1000, gt=0)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    equivalence: float = Field(default=0.01, ge=0)


class Parameters(Settings):
    """The whole of a `params.yaml`.

    Attributes:
        seed: the root of every random stream.
        data: folder with `raw/` and `processed/`, relative to the study's.
        datasets: data sets by name.
        variants: variants by name.
        training: the budget all share unless they say otherwise.
        evaluation: how results are compared.

    """

    seed: int = Field(ge=0)
    data: str = "data"
    datasets: dict[str, DatasetSettings] = Field(min_length=1)
    variants: dict[str, VariantSettings] = Field(min_length=1)
    training: TrainingSettings
    evaluation: EvaluationSettings


class Study:
    """A study: its parameters, checked, and where its files are.

    Args:
        params: path of a `params.yaml`; its folder is the study's.

    Raises:
        SettingsError: the file is missing or no YAML mapping, or a setting is unknown, of the
            wrong type or out of range; one line a fault.

    """

    def __init__(self, params: Path | str = "params.yaml"):
        self.params_file = Path(params)
        self.folder = self.params_file.parent
        self.parameters = read_settings(Parameters, _read_yaml(self.params_file), str(params))
        self._check_names()

    @classmethod
    def find(cls) -> "Study":
        """The study of the working directory, or of the nearest folder above that has one."""
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / "params.yaml").exists():
                return cls(Path(os.path.relpath(folder / "params.yaml")))
        raise SettingsError(
            f"no params.yaml in {here.name}/ or any folder above it: go to a study's folder"
        )

    def dataset(self, name: str) -> DatasetSettings:
        """Settings of a data set; a `SettingsError` names the nearest known one."""
        return self._named("data set", "datasets", name)

    def variant(self, name: str) -> VariantSettings:
        """Settings of a variant; a `SettingsError` names the nearest known one."""
        return self._named("variant", "variants", name)

    def training(self, dataset: str, variant: str) -> TrainingSettings:
        """The study's training settings, with those of the data set and of the variant on top."""
        values = {
            **self.parameters.training.model_dump(),
            **self.dataset(dataset).training,
            **self.variant(variant).training,
        }
        where = (
            f"{self.params_file}: training, with datasets.{dataset}.training and "
            f"variants.{variant}.training"
        )
        return read_settings(TrainingSettings, values, where)

    @property
    def data_folder(self) -> Path:
        """Folder with `raw/` and `processed/`."""
        return self.folder / self.parameters.data

    def prepared(self, dataset: str) -> Path:
        """Folder of a prepared data set."""
        return self.data_folder / "processed" / dataset

    def results(self, dataset: str, variant: str) -> Path:
        """Folder of what training a variant on a data set left."""
        return self.folder / "results" / dataset / variant

    def reports(self, stage: str, *item: str) -> Path:
        """Folder of what people read of a stage."""
        return self.folder.joinpath("reports", stage, *item)

    def checkpoint(self, dataset: Dataset, name: str, variant: str, seed: int) -> Path:
        """Scratch folder of an unfinished run, keyed by all that the run depends on."""
        parts = {
            "data": dataset.checksum(),
            "variant": self.variant(variant).model_dump(exclude={"about"}),
            "training": self.training(name, variant).model_dump(),
            "root seed": self.parameters.seed,
            "run": [name, variant, seed],
        }
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / "scratch" / "checkpoints" / key

    def provenance(self, **more: str) -> pd.DataFrame:
        """What a number depends on besides the code: seed, versions and whatever the caller adds.

        No clock times, no paths: two runs of the same study give the same provenance.
        """
        # Without a local label such as +cpu, which says how a package was built.
        versions = {name: version(name).split("+")[0] for name in PACKAGES}
        values = {
            **more,
            "root seed": str(self.parameters.seed),
            "python": platform.python_version(),
            **versions,
        }
        return pd.DataFrame({"value": values})

    def _named(self, what: str, group: str, name: str) -> Any:
        known = getattr(self.parameters, group)
        if name not in known:
            raise unknown_name(what, name, known, str(self.params_file))
        return known[name]

    def _check_names(self) -> None:
        for group in ("datasets", "variants"):
            for name in getattr(self.parameters, group):
                if not NAME.fullmatch(name):
                    raise SettingsError(
                        f"{self.params_file}: {group}: expected a name of letters, digits, _ and -, "
                        f"found {name!r}: it becomes the name of folders and stages"
                    )
        evaluation = self.parameters.evaluation
        for variant, reference in evaluation.contrasts.items():
            if variant == reference:
                raise SettingsError(
                    f"{self.params_file}: evaluation.contrasts: {variant!r} is compared with itself"
                )
        for name in (evaluation.baseline, *evaluation.contrasts, *evaluation.contrasts.values()):
            self.variant(name)
        for name, dataset in self.parameters.datasets.items():
            where = f"{self.params_file}: datasets.{name}"
            if dataset.source not in source_names():
                raise unknown_name("source", dataset.source, source_names(), where)
            read_settings(options_of(dataset.source), dataset.options, f"{where}.options")
            for variant in self.parameters.variants:
                self.training(name, variant)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; run from a study's folder") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SettingsError(
            f"{path}: expected a mapping of settings, found {type(values).__name__}"
        )
    return values
