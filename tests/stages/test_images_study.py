"""A folder of photographs, from files to scores: as a person with images of their own would go."""

import pandas as pd
import pytest
import yaml
from photographs import write_bad_images, write_folder, write_table

from rarenodes.datasets import Dataset
from rarenodes.stages.check import check_study
from rarenodes.stages.pipeline import pipeline_text
from rarenodes.stages.run import run_without_notebook
from rarenodes.study.params import Study

PARAMETERS = {
    "seed": 1,
    "datasets": {
        "photos": {
            "about": "made photographs → species",
            "source": "images",
            "options": {
                "examples": "photos.csv",
                "folder": "photos",
                "hierarchy": "edges.csv",
                "bad_images": "skip",
                "encoder": {"size": 32},
            },
        }
    },
    "training": {
        "seeds": 2,
        "members": 2,
        "epochs": 15,
        "batch_size": 16,
        "learning_rate": 0.01,
        "hidden": 32,
        "layers": 1,
        "dropout": 0.2,
        "device": "cpu",
        "threads": 1,
    },
    "variants": {"mcm": {"about": "C-HMCNN's max-constraint loss"}},
    "evaluation": {"baseline": "mcm", "resamples": 10},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    (folder / "data").mkdir()
    rows = write_folder(folder / "data", 200)
    bad = write_bad_images(folder / "data" / "photos")
    label = {"labels": "genus 000"}
    write_table(folder / "data", [*rows, *({"image": name, **label} for name in bad)])
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMETERS))
    return Study(folder / "params.yaml")


def test_check_has_a_line_for_each_bad_image_and_says_what_training_takes(study):
    found = [finding for _, finding in check_study(study)]
    assert sum("column 'image'" in finding.text for finding in found) == 6
    assert not [finding.text for finding in found if finding.level == "error"]
    assert any("a tree of 31 nodes and 30 edges, depth 4" in finding.text for finding in found)
    assert any(" of networks: at least " in finding.text for finding in found)


def test_from_photographs_to_scores(study):
    for stage, items in (
        ("prepare", {"dataset": "photos"}),
        ("train", {"dataset": "photos", "variant": "mcm"}),
        ("score", {"dataset": "photos"}),
    ):
        run_without_notebook(study, stage, items)
    prepared = Dataset.load(study.prepared("photos"))
    assert len(prepared.features) == 200
    assert int(prepared.hierarchy.depth.max()) == 4
    assert len(list((study.folder / "scratch" / "features").glob("*/*.safetensors"))) == 1
    (path,) = study.scores("photos").glob("nodes*")
    nodes = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    groups = nodes[nodes["node"].str.startswith("group")]
    # Two colours: guessing has an average precision of a half.
    assert groups["average_precision"].mean() > 0.9


def test_the_pipeline_depends_on_the_images(study):
    deps = yaml.safe_load(pipeline_text(study))["stages"]["prepare"]["deps"]
    assert {"data/edges.csv", "data/photos", "data/photos.csv"} <= set(deps)
