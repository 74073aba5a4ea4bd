"""Pipelines are written from parameters, and commands find their item by DVC's name for it."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from rarenodes.scores.metrics import RARITY_BINS
from rarenodes.settings import SettingsError
from rarenodes.stages import code
from rarenodes.stages.dvc_plots import TEMPLATE_FILES, plots_of, templates
from rarenodes.stages.pipeline import check_pipeline, pipeline_text, stage_from_dvc, write_pipeline
from rarenodes.stages.sources import SUFFIXES
from rarenodes.study.params import Study

REPOSITORY = Path(__file__).parents[2]
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
    assert list(stages) == ["code", *study.parameters.stages]
    assert {stage["cmd"] for stage in stages.values()} == {"python -m rarenodes stage"}


# --- code: what stages depend on, where the library is outside the study's folder ------------------


def dependences(study: Study) -> dict[str, tuple[list[str], list]]:
    stages = yaml.safe_load(pipeline_text(study))["stages"]
    return {name: (stage["deps"], stage.get("params", [])) for name, stage in stages.items()}


def test_a_study_that_holds_the_library_depends_on_its_packages():
    found = dependences(Study(REPOSITORY / "params.yaml"))
    assert "code" not in found
    deps, params = found["train"]
    assert {"src/rarenodes/loss", "src/rarenodes/training"} <= set(deps)
    assert not [key for key in params if isinstance(key, dict) and "code.json" in key]


def test_any_other_study_depends_on_digests_of_them(study):
    found = dependences(study)
    files, none = found.pop("code")
    assert none == []
    assert any(file.endswith("rarenodes/loss/coherent.py") for file in files)
    assert any(file.endswith("rarenodes/pages/templates/table.md.jinja") for file in files)
    assert not [file for file in files if "__pycache__" in file]
    for name, (deps, params) in found.items():
        assert not [path for path in deps if "rarenodes/" in path]
        assert {"code.json": [name]} in params


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """A copy of the library, which `code` reads."""
    copy = tmp_path / "library"
    shutil.copytree(code.LIBRARY, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "LIBRARY", copy)
    return copy


def test_what_compiling_leaves_is_no_code(study, library):
    before, files = code.write_code(study), code.code_files(study)
    (library / "loss" / "__pycache__").mkdir()
    (library / "loss" / "__pycache__" / "coherent.cpython-311.pyc").write_bytes(b"compiled")
    (library / "loss" / "kernels" / "compiled.py.swp").write_bytes(b"open in an editor")
    assert code.write_code(study) == before == json.loads((study.folder / "code.json").read_text())
    assert code.code_files(study) == files


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("loss/coherent.py", {"prepare", "train", "combine"}),
        ("pages/templates/table.md.jinja", {"prepare", "evaluate", "compare"}),
        ("folders.py", {"prepare", "train", "combine", "score", "scores", "evaluate", "compare"}),
    ],
)
def test_an_edit_is_other_code_for_the_stages_that_depend_on_it(study, library, file, stages):
    before = code.write_code(study)
    with (library / file).open("a") as out:
        out.write("\n")
    after = code.write_code(study)
    assert {name for name in before if before[name] != after[name]} == stages & set(before)


def test_a_new_module_is_listed(study, library):
    before = set(code.code_files(study))
    (library / "loss" / "new.py").touch()
    assert set(code.code_files(study)) == before
    (library / "loss" / "new.py").write_text('"""A new loss."""\n')
    assert set(code.code_files(study)) - before == {"loss/new.py"}


def test_all_files_of_the_library_are_sources():
    files = [p for p in code.LIBRARY.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert {path.suffix for path in files} <= SUFFIXES


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


def test_stages_that_read_a_source_depend_on_its_files(tmp_path):
    for path in (REPOSITORY / "data" / "examples").iterdir():
        shutil.copy(path, tmp_path)
    values = yaml.safe_load((tmp_path / "params.yaml").read_text())
    values["catalogue"] = [str(REPOSITORY / "variants.yaml")]
    values["stages"] = ["prepare", "train", "model"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    stages = yaml.safe_load(pipeline_text(Study(tmp_path / "params.yaml")))["stages"]
    for name, reads in {"prepare": True, "train": False, "model": True}.items():
        assert ("texts.csv" in str(stages[name]["deps"])) == reads
    assert [*stages["model"]["outs"][0]] == ["models/${item.dataset}/${item.variant}"]


def test_committees_of_a_pipeline_are_defined_in_its_catalogue(study):
    both = {"about": "", "committee": {"members": ["mcm", "trees"]}}
    variants = {"mcm": {"about": ""}, "trees": {"about": "", "forest": {}}, "both": both}
    values = {"baseline": "mcm"}
    asked = changed(study, committees=["both"], variants=variants, evaluation=values)
    assert list(asked.variants) == ["mcm", "trees", "both"]
    with pytest.raises(
        SettingsError, match=r"committees: a pipeline's are defined in its catalogue"
    ):
        pipeline_text(asked)


def test_a_stage_that_there_is_not(study):
    values = yaml.safe_load((study.folder / "params.yaml").read_text())
    values["stages"] = ["prepare", "tarin"]
    (study.folder / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SettingsError, match=r"stages: unknown stage 'tarin'; did you mean 'train'"):
        pipeline_text(Study(study.folder / "params.yaml"))


def changed(study: Study, **values) -> Study:
    settings = yaml.safe_load(study.params_file.read_text())
    study.params_file.write_text(yaml.safe_dump(settings | values))
    return Study(study.params_file)


def test_plots_are_drawn_of_what_stages_leave():
    study = Study(REPOSITORY / "params.yaml")
    plots = {title: plot for entry in plots_of(study) for title, plot in entry.items()}
    assert len(plots) == 3 * len(study.parameters.datasets)
    assert {f"{plot['template']}.json" for plot in plots.values()} == set(templates())
    for title, plot in plots.items():
        for file, column in plot["y"].items():
            if "learning curves" in title:
                assert file.split("/")[2] in study.variants
                assert (plot["x"], column) == ("epoch", "valid_bce")
            else:
                table = pd.read_csv(REPOSITORY / file)
                assert {plot["x"], column, "variant"} <= set(table.columns)


def test_templates_are_committed_and_take_what_dvc_gives():
    for name, text in templates().items():
        assert (REPOSITORY / TEMPLATE_FILES / name).read_text() == text
        template = json.loads(text)
        assert template["data"]["values"] == "<DVC_METRIC_DATA>"
        assert template["encoding"]["x"]["field"] == "<DVC_METRIC_X>"
        assert "'<DVC_METRIC_Y>'" in template["transform"][0]["calculate"]
        assert template["encoding"]["column"]["field"] == "rev"
    by_rarity = json.loads(templates()["by_rarity.json"])
    assert by_rarity["encoding"]["x"]["sort"] == list(RARITY_BINS)


def test_curves_are_drawn_where_validation_data_are_held_out(study):
    def curves(of: Study) -> list[dict]:
        return [
            plot for entry in plots_of(of) for title, plot in entry.items() if "curves" in title
        ]

    drawn = curves(study)
    assert len(drawn) == 2
    settings = yaml.safe_load(study.params_file.read_text())
    linear = {"about": "linear", "linear": {"kind": "conditional"}}
    of_linear = changed(study, variants={**settings["variants"], "plain": linear})
    assert [plot["y"] for plot in curves(of_linear)] == [plot["y"] for plot in drawn]
    training = settings["training"] | {"fit_on": ["train", "valid"]}
    assert curves(changed(study, training=training)) == []


def test_where_nothing_is_evaluated_nothing_is_drawn(study):
    alone = changed(study, stages=["prepare", "train"])
    assert "plots" not in yaml.safe_load(pipeline_text(alone))
    write_pipeline(alone)
    assert not (study.folder / TEMPLATE_FILES).exists()
    write_pipeline(changed(study, stages=["prepare", "train", "score", "evaluate"]))
    assert set(templates()) == {path.name for path in (study.folder / TEMPLATE_FILES).iterdir()}
