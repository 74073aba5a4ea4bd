"""The command `check`: what is wrong with a study's data, before anything is prepared or trained."""

import math
from collections.abc import Iterator, Sequence

from rarenodes.datasets import load_dataset, options_of, raw_files_of
from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.sampling import Sampling
from rarenodes.datasets.table import TableOptions
from rarenodes.datasets.table_findings import Finding, inspect_table, nodes_without_examples
from rarenodes.settings import SettingsError, read_settings
from rarenodes.study.params import Study
from rarenodes.training.loop import choose_device
from rarenodes.training.memory import Size, check_memory, memory_of


def check_study(study: Study, names: Sequence[str] | None = None) -> Iterator[tuple[str, Finding]]:
    """Findings about the data sets of a study, each with the data set's name.

    Own files are opened. Data that a package brings are not made for this: they are looked at if they
    are prepared.

    Args:
        study: the study, its parameters checked.
        names: only these data sets.

    Raises:
        SettingsError: an unknown data set.

    """
    for name in names or study.parameters.datasets:
        settings = study.dataset(name)
        if options_of(settings.source) is TableOptions:
            findings = _own_data(study, name)
        elif raw_files_of(settings.source, settings.options, study.data_folder):
            findings = _loaded(study, name)
        else:
            findings = _prepared(study, name)
        for finding in findings:
            yield name, finding


def _own_data(study: Study, name: str) -> Iterator[Finding]:
    settings = study.dataset(name)
    where = f"options of {settings.source}"
    options = read_settings(TableOptions, settings.options, where)
    sampling = Sampling(settings.source, study.parameters.seed, settings.train_fraction)
    report = inspect_table(options, study.data_folder, sampling)
    yield from report.findings
    if report.features is not None and report.hierarchy is not None:
        yield from _memory(
            study, name, report.features, len(report.hierarchy), report.training_examples
        )


def _loaded(study: Study, name: str) -> Iterator[Finding]:
    """Own files of which a data set is made at once: the first fault, or what there is."""
    settings = study.dataset(name)
    try:
        dataset = load_dataset(
            settings.source,
            study.data_folder,
            seed=study.parameters.seed,
            train_fraction=settings.train_fraction,
            options=settings.options,
        )
    except (ValueError, OSError) as error:
        yield Finding("error", str(error))
        return
    files = raw_files_of(settings.source, settings.options, study.data_folder)
    yield from _described(study, name, ", ".join(map(str, files)), dataset)


def _prepared(study: Study, name: str) -> Iterator[Finding]:
    folder = study.prepared(name)
    if not (folder / "dataset.json").exists():
        source = study.dataset(name).source
        yield Finding("note", f"from the source {source}, not prepared yet: no own file to open")
        return
    try:
        dataset = Dataset.load(folder)
    except (ValueError, OSError) as error:
        yield Finding("error", str(error))
        return
    yield from _described(study, name, str(folder), dataset)


def _described(study: Study, name: str, where: str, dataset: Dataset) -> Iterator[Finding]:
    hierarchy = dataset.hierarchy
    kind = "tree" if hierarchy.is_tree else "DAG"
    yield Finding(
        "note",
        f"{where}: {len(dataset.features)} examples, {dataset.features.shape[1]} features; a {kind} "
        f"of {len(hierarchy)} nodes and {hierarchy.num_edges} edges, depth "
        f"{int(hierarchy.depth.max())}",
    )
    yield from nodes_without_examples(hierarchy, dataset.counts("train"))
    yield from _memory(
        study, name, dataset.features.shape[1], len(hierarchy), len(dataset.split["train"])
    )


def _memory(study: Study, name: str, features: int, nodes: int, examples: int) -> Iterator[Finding]:
    """The training that needs most memory, and all that need more than there is."""
    needed = {}
    for variant in study.variants:
        if study.variant(variant).family != "network":
            continue
        training = study.training(name, variant)
        size = Size(
            features=features,
            nodes=nodes,
            hidden=training.hidden,
            layers=training.layers,
            members=training.members,
            batch_size=min(training.batch_size, examples),
            networks=1 if training.ensemble == "dropout" else training.members,
        )
        try:
            device = choose_device(training.device)
            check_memory(size, device, f"{name} {variant}")
        except SettingsError as error:
            yield Finding("error", str(error))
            continue
        needed[variant] = (size.bytes_needed(), memory_of(device))
    if needed:
        variant = max(needed, key=lambda variant: needed[variant])
        most, there = (math.ceil(number / 2**20) for number in needed[variant])
        yield Finding(
            "note",
            f"a training needs at least {most:,} MiB of memory ({variant}), of {there:,} MiB",
        )
