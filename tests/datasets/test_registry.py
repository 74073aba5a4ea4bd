import pytest

from rarenodes.datasets import load_dataset, options_of, source_names
from rarenodes.settings import Settings, SettingsError

FEATURE_SETS = ("cellcycle", "derisi", "eisen", "expr", "gasch1", "gasch2", "seq", "spo")


def test_all_sources_are_there():
    yeast = {f"{name}_{kind}" for name in FEATURE_SETS for kind in ("FUN", "GO")}
    others = {"synthetic", "table", "diatoms", "enron", "imclef07a", "imclef07d"}
    packaged = {"attack", "hpo", "icd10cm", "kanji"}
    assert set(source_names()) == yeast | others | packaged
    assert all(issubclass(options_of(name), Settings) for name in source_names())


@pytest.mark.parametrize("use", [load_dataset, options_of])
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
