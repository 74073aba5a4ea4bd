"""The stage `images`: evaluations of encoders and shares, put side by side."""

import pandas as pd
import pytest
import yaml

from rarenodes.pages.prose import read_values
from rarenodes.settings import SettingsError
from rarenodes.stages.images import images
from rarenodes.study.params import Study


def write_study(folder, encoders):
    parameters = {
        "seed": 1,
        "datasets": {
            name: {"about": "", "source": "kanji", "train_fraction": share, "options": options}
            for name, (share, options) in encoders.items()
        },
        "variants": {
            "mcm": {"about": "", "source": "Giunchiglia and Lukasiewicz 2020"},
            "weighted": {"about": "", "source": "Xu et al. 2026", "weights": {"mode": "binary"}},
            "shifted": {"about": "", "shift": {"kind": "prior", "strength": 1.0}},
        },
        "training": {
            "seeds": 1, "members": 1, "epochs": 1, "batch_size": 8, "learning_rate": 0.1, "hidden": 4,
        },
        "evaluation": {"baseline": "mcm", "contrasts": {"shifted": "weighted"}},
    }  # fmt: skip
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters))
    return Study(folder / "params.yaml")


def write_evaluation(study, name, gain):
    tables = study.reports("evaluate", name) / "tables"
    tables.mkdir(parents=True)
    common = {"measure": "macro_recall", "nodes": "rare", "at": "half", "symbol": "+"}
    rows = [
        {
            "variant": v,
            "baseline": b,
            "baseline_score": 0.1,
            "difference": gain,
            "verdict": "better",
        }
        for v, b in (("weighted", "mcm"), ("shifted", "mcm"), ("shifted", "weighted"))
    ]
    table = pd.DataFrame([common | row | {"lower": gain, "upper": gain} for row in rows])
    table.to_csv(tables / "differences.csv", index=False)
    scores = {"recall_half": 0.1, "average_precision": 0.1}
    pd.DataFrame([{"rarity": "1–5", "variant": "mcm", **scores}]).to_csv(
        tables / "by_rarity.csv", index=False
    )


def test_every_gain_has_its_encoder_and_share(tmp_path):
    encoders = {"good": (1.0, {"encoder": {}}), "bad": (0.2, {"encoder": {"blend": 0.75}})}
    study = write_study(tmp_path, encoders)
    write_evaluation(study, "good", 0.01)
    write_evaluation(study, "bad", 0.02)
    grid = images(study, tmp_path / "out")
    found = grid.gains.set_index(["blend", "share", "variant"])["difference"].to_dict()
    assert found == {
        (0.0, 1.0, "weighted"): 0.01,
        (0.0, 1.0, "shifted"): 0.01,
        (0.75, 0.2, "weighted"): 0.02,
        (0.75, 0.2, "shifted"): 0.02,
    }
    assert grid.gains.groupby("variant")["paper"].first().to_dict() == {
        "shifted": False,
        "weighted": True,
    }
    assert grid.by_rarity.set_index("dataset")["blend"].to_dict() == {"good": 0.0, "bad": 0.75}
    assert read_values(tmp_path / "out")["found_better"] == 2
    assert len(pd.read_csv(tmp_path / "out" / "tables" / "gains.csv")) == 4


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        ({"a": (1.0, {})}, r"datasets\.a\.options\.encoder: missing; the stage images compares"),
        (
            {"a": (1.0, {"encoder": {}}), "b": (1.0, {"encoder": {"blend": 0.0}})},
            "expected another encoder or share in each, found two alike",
        ),
    ],
)
def test_data_sets_that_are_no_grid(tmp_path, encoders, message):
    with pytest.raises(SettingsError, match=message):
        images(write_study(tmp_path, encoders), tmp_path / "out")


def test_a_data_set_that_was_not_evaluated(tmp_path):
    study = write_study(tmp_path, {"good": (1.0, {"encoder": {}})})
    with pytest.raises(FileNotFoundError, match="run the stage evaluate@good first"):
        images(study, tmp_path / "out")
