"""The stage `prepare`: from a source of data to a stored data set."""

from pathlib import Path

from rarenodes.datasets import load_dataset
from rarenodes.datasets.dataset import Dataset
from rarenodes.study.params import Study


def load_source(study: Study, name: str) -> Dataset:
    """A data set of a study from its source, whether it was prepared or not; see `load_dataset`."""
    settings = study.dataset(name)
    return load_dataset(
        settings.source,
        study.data_folder,
        seed=study.parameters.seed,
        train_fraction=settings.train_fraction,
        options=settings.options,
        cache=study.folder / "scratch" / "features",
    )


def prepare(study: Study, name: str, folder: Path) -> Dataset:
    """Load a data set from its source and store it in `folder`."""
    dataset = load_source(study, name)
    dataset.save(folder)
    return dataset
