"""Variants that differ in what is predicted with the same networks: trained once, whoever is first."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from rarenodes.settings import SettingsError
from rarenodes.stages.pipeline import pipeline_text
from rarenodes.stages.prepare import prepare
from rarenodes.stages.train import discard_checkpoints, train
from rarenodes.study.params import Study
from rarenodes.study.results import Results
from rarenodes.training import loop

TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"
CONSTANT = {"about": "the same networks", "networks_of": "mcm", "unseen": "constant"}


def study_with(folder: Path, **variants) -> Study:
    values = yaml.safe_load(TINY.read_text())
    # So few that some nodes have no training positive.
    values["datasets"] = {"toy": values["datasets"]["toy_limited"] | {"train_fraction": 0.2}}
    values["variants"] = {"mcm": values["variants"]["mcm"], **variants}
    values["evaluation"] = {"baseline": "mcm"}
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return Study(folder / "params.yaml")


@pytest.mark.parametrize("order", [("mcm", "constant"), ("constant", "mcm")])
def test_networks_are_trained_once_and_predict_as_if_trained_for_it(tmp_path, monkeypatch, order):
    anew = {"about": "trained for it", "unseen": "constant"}
    study = study_with(tmp_path, constant=CONSTANT, anew=anew)
    prepare(study, "toy", study.prepared("toy"))
    train_epoch, epochs = loop._Run.train_epoch, []

    def counted(run, epoch, order):
        epochs.append(epoch)
        return train_epoch(run, epoch, order)

    monkeypatch.setattr(loop._Run, "train_epoch", counted)
    for variant, more in zip(order, (4, 0), strict=True):  # two seeds of two epochs
        epochs.clear()
        train(study, "toy", variant, study.results("toy", variant))
        discard_checkpoints(study, "toy", variant)
        assert len(epochs) == more
        left = list((tmp_path / "scratch" / "checkpoints").glob("*/*"))
        assert bool(left) == (variant == order[0])
    train(study, "toy", "anew", study.results("toy", "anew"))
    found, expected, plain = (
        Results.load(study.results("toy", variant)) for variant in ("constant", "anew", "mcm")
    )
    np.testing.assert_array_equal(found.test, expected.test)
    assert not np.array_equal(found.test, plain.test)
    assert found.history.equals(plain.history)  # of one training


def test_training_and_budget_are_the_others(tmp_path):
    of_mcm = {"about": "a", "training": {"epochs": 7}}
    study = study_with(tmp_path, longer=of_mcm, constant=CONSTANT | {"networks_of": "longer"})
    assert study.training("toy", "constant") == study.training("toy", "longer")
    assert study.training("toy", "constant").epochs == 7
    assert "networks_of" not in pipeline_text(study)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"networks_of": "mmc"}, "unknown variant 'mmc'; did you mean 'mcm'"),
        ({"weights": {"mode": "binary"}}, "expected a variant that is trained alike"),
        ({"training": {"epochs": 3}}, "without other settings of training here"),
        ({"networks_of": "constant"}, "with networks of its own"),
    ],
)
def test_networks_of_another_training_are_refused(tmp_path, change, message):
    with pytest.raises(SettingsError, match=rf"variants\.constant\.networks_of: .*{message}"):
        study_with(tmp_path, constant=CONSTANT | change)
