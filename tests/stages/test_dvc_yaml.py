"""Pipelines are written from parameters, and commands find their item by DVC's name for it."""

import shutil
from pathlib import Path

import pytest
import yaml

from rarenodes.settings import SettingsError
from rarenodes.stages.pipeline import check_pipeline, pipeline_text, stage_from_dvc, write_pipeline
from rarenodes.study.params import Study

TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"


@pytest.fixture
def study(tmp_path) -> Study:
    shutil.copy(TINY, tmp_path)
    return Study(tmp_path / "params.yaml")


def test_items_are_found_by_the_stages_address(study):
    found = stage_from_dvc(study, {"DVC_STAGE": "train@toy_limited-weighted_binary"})
    assert found == ("train", {"dataset": "toy_limited", "variant": "weighted_binary"})
    assert stage_from_dvc(study, {"DVC_STAGE": "compare"}) == ("compare", {})
    elsewhere = stage_from_dvc(study, {"DVC_STAGE": "studies/x/dvc.yaml:prepare@toy"})
    assert elsewhere == ("prepare", {"dataset": "toy"})


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (None, "expected a stage of prepare, train"),
        ("nothing@toy", "expected a stage of prepare, train"),
        ("train@toy-mmc", "'train@toy-mmc' is for no item of this study"),
        ("compare@toy", "'compare@toy' is for no item of this study"),
        ("prepare@toy; touch x", "'prepare@toy; touch x' is for no item of this study"),
    ],
)
def test_other_names_are_refused(study, address, message):
    with pytest.raises(SettingsError, match=message):
        stage_from_dvc(study, {} if address is None else {"DVC_STAGE": address})


def test_commands_name_no_item(study):
    stages = yaml.safe_load(pipeline_text(study))["stages"]
    assert list(stages) == study.parameters.stages
    assert {stage["cmd"] for stage in stages.values()} == {"python -m rarenodes stage"}


@pytest.mark.parametrize("folder", ["../../data", "/elsewhere"])
def test_data_that_dvc_cannot_keep_are_refused(study, folder):
    text = study.params_file.read_text()
    study.params_file.write_text(text.replace("data: data", f"data: {folder}"))
    with pytest.raises(SettingsError, match=r"params\.yaml: data: expected a folder inside"):
        pipeline_text(Study(study.params_file))


def test_a_pipeline_for_other_parameters_is_refused_and_one_by_hand_is_not(study):
    path = write_pipeline(study)
    check_pipeline(study)
    path.write_text(path.read_text().replace("    - seed\n", "", 1))
    with pytest.raises(SettingsError, match="run `python -m rarenodes pipeline`"):
        check_pipeline(study)
    path.write_text("stages: {}\n")
    check_pipeline(study)


def test_a_stage_that_there_is_not(study):
    values = yaml.safe_load((study.folder / "params.yaml").read_text())
    values["stages"] = ["prepare", "tarin"]
    (study.folder / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SettingsError, match=r"stages: unknown stage 'tarin'; did you mean 'train'"):
        pipeline_text(Study(study.folder / "params.yaml"))
