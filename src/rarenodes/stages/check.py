"""The command `check`: what is wrong with a study's data, before anything is prepared or trained."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rarenodes.datasets import options_of, raw_files_of
from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.files import FileFault, brief, counted
from rarenodes.datasets.image_findings import inspect_images
from rarenodes.datasets.images import ImagesOptions
from rarenodes.datasets.label_findings import Finding, nodes_without_examples
from rarenodes.datasets.sampling import Sampling
from rarenodes.datasets.table import TableOptions
from rarenodes.datasets.table_findings import inspect_table
from rarenodes.settings import SettingsError, read_settings
from rarenodes.stages.expected_time import in_words, seconds_a_step, seconds_of_training
from rarenodes.stages.prepare import load_source
from rarenodes.study.params import Study
from rarenodes.training.loop import choose_device
from rarenodes.training.memory import Size, check_memory, memory_of

# Steps are tried of trainings that need at most this share of the memory.
LARGEST_TRIAL = 0.25
# Of what loading says, so many letters are shown, on one line.
LETTERS = 1000
# Own data of which all faults are found at once, by the options of their source.
_INSPECTIONS = {TableOptions: inspect_table, ImagesOptions: inspect_images}


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
        if options_of(settings.source) in _INSPECTIONS:
            findings = _own_data(study, name)
        elif files := raw_files_of(settings.source, settings.options, study.data_folder):
            findings = _loaded(study, name, files)
        else:
            findings = _prepared(study, name)
        for finding in findings:
            yield name, finding


def _own_data(study: Study, name: str) -> Iterator[Finding]:
    settings = study.dataset(name)
    where = f"options of {settings.source}"
    kind = options_of(settings.source)
    options = read_settings(kind, settings.options, where)
    sampling = Sampling(settings.source, study.parameters.seed, settings.train_fraction)
    try:
        report = _INSPECTIONS[kind](options, study.data_folder, sampling)
    except (FileFault, OSError) as fault:  # the other data sets are still looked at
        yield Finding("error", brief(fault, LETTERS))
        return
    yield from report.findings
    # Of images, all that loading refuses is found above: it would decode or even encode them again.
    sound = all(finding.level != "error" for finding in report.findings)
    if kind is TableOptions and sound and (refused := _refused(study, name)):
        yield refused
        return
    if report.features is not None and report.hierarchy is not None:
        examples = {"train": report.training_examples, "valid": report.validation_examples}
        yield from _cost(study, name, report.features, len(report.hierarchy), examples)


def _refused(study: Study, name: str) -> Finding | None:
    """Why `prepare` will refuse a data set, if it will."""
    try:
        load_source(study, name)
    except (ValueError, OSError) as error:
        return Finding("error", brief(error, LETTERS))
    return None


def _loaded(study: Study, name: str, files: Sequence[Path]) -> Iterator[Finding]:
    """Own files of which a data set is made at once: the first fault, or what there is."""
    try:
        dataset = load_source(study, name)
    except (ValueError, OSError) as error:
        yield Finding("error", str(error))
        return
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
        f"{where}: {counted(len(dataset.features), 'example')}, "
        f"{counted(dataset.features.shape[1], 'feature')}; a {kind} of {len(hierarchy)} nodes and "
        f"{counted(hierarchy.num_edges, 'edge')}, depth "
        f"{int(hierarchy.depth.max())}",
    )
    if dataset.unknown is not None:
        pairs = int(dataset.unknown.sum())
        yield Finding(
            "note",
            f"{counted(pairs, 'pair of example and node is', 'pairs of example and node are')} left open "
            "below labels that stop half-way: in no loss and no score (option unknown_below)",
        )
    yield from nodes_without_examples(hierarchy, dataset.counts("train"))
    examples = {part: len(rows) for part, rows in dataset.split.items()}
    yield from _cost(study, name, dataset.features.shape[1], len(hierarchy), examples)


def _cost(
    study: Study, name: str, features: int, nodes: int, examples: Mapping[str, int]
) -> Iterator[Finding]:
    """Memory and time of trainings; all that need more memory than there is are errors."""
    sizes, devices = {}, {}
    for variant in study.variants:
        if study.variant(variant).family != "network":
            continue
        training = study.training(name, variant)
        rows = sum(examples[part] for part in training.fit_on)
        size = Size(
            features=features if training.encoder is None else training.encoder.features,
            nodes=nodes,
            hidden=training.hidden,
            layers=training.layers,
            members=training.members,
            batch_size=min(training.batch_size, rows),
            networks=1 if training.ensemble == "dropout" else training.members,
            sparse=study.variant(variant).sparse is not None,
        )
        try:
            device = choose_device(training.device)
            check_memory(size, device, f"{name} {variant}")
        except SettingsError as error:
            yield Finding("error", str(error))
            continue
        sizes[variant], devices[variant] = size, device
    if sizes:
        yield _memory(sizes, devices)
        yield from _time(study, name, examples, sizes, devices)


def _memory(sizes: Mapping[str, Size], devices: Mapping[str, str]) -> Finding:
    """The training that needs most."""
    variant = max(sizes, key=lambda variant: sizes[variant].bytes_needed())
    needed = (sizes[variant].bytes_needed(), memory_of(devices[variant]))
    most, there = (math.ceil(number / 2**20) for number in needed)
    return Finding(
        "note", f"a training needs at least {most:,} MiB of memory ({variant}), of {there:,} MiB"
    )


def _time(
    study: Study,
    name: str,
    examples: Mapping[str, int],
    sizes: Mapping[str, Size],
    devices: Mapping[str, str],
) -> Iterator[Finding]:
    """How long all trainings of networks take; of large ones no step is tried."""
    measured: dict[tuple, float] = {}
    seconds, runs = {}, 0
    for variant, size in sizes.items():
        training, device = study.training(name, variant), devices[variant]
        if size.bytes_needed() > LARGEST_TRIAL * memory_of(device):
            continue
        kind = (size, training.dropout, device, training.threads)
        if kind not in measured:
            measured[kind] = seconds_a_step(*kind)
        seeds = study.seeds(name, variant)
        rows = sum(examples[part] for part in training.fit_on)
        seconds[variant] = seconds_of_training(size, rows, training.epochs, measured[kind], seeds)
        runs += seeds
    if seconds:
        longest = max(seconds, key=lambda variant: seconds[variant])
        yield Finding(
            "note",
            f"{counted(runs, 'training')} of networks: at least "
            f"{in_words(sum(seconds.values()))} on this machine, one after the other, by a few steps "
            f"of each size; longest: {longest}, "
            f"{in_words(seconds[longest])}; other kinds of variants and what resampling adds come on "
            "top",
        )
    for variant in sorted(set(sizes) - set(seconds)):
        yield Finding("note", f"the time of {variant} is unknown: it is too large to be tried")
