from pathlib import Path

import pytest

from rarenodes.datasets import load_dataset, options_of, raw_files_of, source_names
from rarenodes.settings import Settings, SettingsError

FEATURE_SETS = ("cellcycle", "derisi", "eisen", "expr", "gasch1", "gasch2", "seq", "spo")


def test_all_sources_are_there():
    yeast = {f"{name}_{kind}" for name in FEATURE_SETS for kind in ("FUN", "GO")}
    others = {"arff", "images", "synthetic", "table", "diatoms", "enron", "imclef07a", "imclef07d"}
    packaged = {"attack", "hpo", "icd10cm", "kanji"}
    assert set(source_names()) == yeast | others | packaged
    assert all(issubclass(options_of(name), Settings) for name in source_names())


def raw_files_of_nothing(name):
    return raw_files_of(name, {}, "data")


@pytest.mark.parametrize("use", [load_dataset, options_of, raw_files_of_nothing])
def test_an_unknown_source_names_the_nearest(use):
    with pytest.raises(
        SettingsError, match="unknown source 'celcycle_FUN'; did you mean 'cellcycle_FUN'"
    ):
        use("celcycle_FUN")


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(
        SettingsError, match="options of synthetic: unknown key 'node'; did you mean 'nodes'"
    ):
        load_dataset("synthetic", options={"node": 3})


def test_a_fraction_out_of_range():
    with pytest.raises(ValueError, match=r"synthetic: train_fraction is 0\.0; expected above 0"):
        load_dataset("synthetic", train_fraction=0.0)


def test_own_data_depend_on_their_files_and_nothing_else_does():
    options = {"examples": "raw/a.csv", "hierarchy": "raw/b.obo"}
    assert raw_files_of("table", options, "data") == [
        Path("data/raw/a.csv"),
        Path("data/raw/b.obo"),
    ]
    options = {"examples": "a.csv", "matrix": "b.npy", "path_separator": "/"}
    assert raw_files_of("table", options, "data") == [Path("data/a.csv"), Path("data/b.npy")]
    options = {"train": "a.arff", "test": "raw/b.arff"}
    assert raw_files_of("arff", options, "data") == [Path("data/a.arff"), Path("data/raw/b.arff")]
    options = {"examples": "a.csv", "folder": "raw/photos", "path_separator": "/"}
    assert raw_files_of("images", options, "data") == [Path("data/a.csv"), Path("data/raw/photos")]
    for name in set(source_names()) - {"arff", "images", "table"}:
        assert raw_files_of(name, None, "data") == []


def test_raw_files_of_wrong_options():
    with pytest.raises(SettingsError, match="options of table: hierarchy: missing; it is required"):
        raw_files_of("table", {"examples": "a.csv"}, "data")
