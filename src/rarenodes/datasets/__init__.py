"""Sources of data, each of which becomes a `Dataset`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarenodes.datasets import (
    attack,
    benchmarks,
    clus,
    hpo,
    icd10cm,
    images,
    kanji,
    synthetic,
    table,
)
from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.sampling import Sampling
from rarenodes.settings import Settings, read_settings, unknown_name

__all__ = ["Dataset", "load_dataset", "options_of", "raw_files_of", "source_names"]


def _none(options: Any, root: Path) -> list[Path]:
    """What a source depends on that makes its data, or has them from a package or the network."""
    return []


@dataclass(frozen=True)
class _Source:
    load: Callable[..., Dataset]
    options: type[Settings]
    raw_files: Callable[[Any, Path], list[Path]] = _none
    # Whether it takes a folder for what is dear to make, as a fifth argument.
    caches: bool = False


_SOURCES = {
    "arff": _Source(clus.load, clus.ClusOptions, clus.raw_files),
    "attack": _Source(attack.load, attack.AttackOptions),
    "hpo": _Source(hpo.load, hpo.HpoOptions),
    "icd10cm": _Source(icd10cm.load, icd10cm.Icd10cmOptions),
    "images": _Source(images.load, images.ImagesOptions, images.raw_files, caches=True),
    "kanji": _Source(kanji.load, kanji.KanjiOptions, caches=True),
    "synthetic": _Source(synthetic.load, synthetic.SyntheticOptions),
    "table": _Source(table.load, table.TableOptions, table.raw_files),
    **{n: _Source(benchmarks.load, benchmarks.options_of(n)) for n in benchmarks.names()},
}


def source_names() -> tuple[str, ...]:
    """Names of all sources of data."""
    return tuple(_SOURCES)


def options_of(name: str) -> type[Settings]:
    """The options a source takes, as a settings class with defaults.

    Raises:
        SettingsError: an unknown source; the nearest known name is suggested.

    """
    return _source(name).options


def raw_files_of(name: str, options: Mapping[str, Any] | None, root: str | Path) -> list[Path]:
    """The user's own files that a data set is made of, so that an edit of one makes it stale.

    Empty for sources that make their data, or have them from a package or, verified by checksum,
    from the network.

    Args:
        name: a source, one of `source_names()`.
        options: options of the source, see `options_of`.
        root: data folder, as in `load_dataset`.

    Raises:
        SettingsError: an unknown source, or options that do not fit it.

    """
    source = _source(name)
    return source.raw_files(
        read_settings(source.options, options or {}, f"options of {name}"), Path(root)
    )


def load_dataset(
    name: str,
    root: str | Path = "data",
    *,
    seed: int = 0,
    train_fraction: float = 1.0,
    options: Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> Dataset:
    """Load or make the data set of a source.

    Args:
        name: a source, one of `source_names()`.
        root: data folder; raw files lie in `root/raw`.
        seed: the study's seed, for splits, draws and randomised fits.
        train_fraction: share of the training examples to keep, in (0, 1]. Features are fitted on
            what is kept; `valid` and `test` stay the same.
        options: options of the source, see `options_of`.
        cache: folder for what takes long to make and need not be made again: features of images by an
            encoder. None makes all anew.

    Raises:
        SettingsError: an unknown source, or options that do not fit it.
        ValueError: data or options from which no data set can be made, such as a training split
            without a positive node.
        OSError: a file that is missing or cannot be read.

    """
    source = _source(name)
    checked = read_settings(source.options, options or {}, f"options of {name}")
    given = (name, Path(root), checked, Sampling(name, seed, train_fraction))
    return source.load(*given, cache) if source.caches else source.load(*given)


def _source(name: str) -> _Source:
    if name not in _SOURCES:
        raise unknown_name("source", name, _SOURCES, "datasets")
    return _SOURCES[name]
