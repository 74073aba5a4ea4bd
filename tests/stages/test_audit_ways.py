"""Ways of an audit beside the one there: other weights, another baseline."""

import pytest
import yaml

from rarenodes.settings import SettingsError
from rarenodes.stages.audit.switches import audited_variants, main_pairs, switch_pairs
from rarenodes.study.params import Study

BINARY = {"mode": "binary"}
TUNED = {"batch_size": 64, "epochs": 3}
VARIANTS = {
    "plain": {},
    "weighted": {"weights": {"mode": "class-wise"}},
    "whole": {"weights": {"mode": "class-wise"}, "reduction": "mean"},
    "binary": {"weights": BINARY},
    "binary_whole": {"weights": BINARY, "reduction": "mean"},
    "tuned": {"training": TUNED},
    "tuned_whole": {"weights": BINARY, "reduction": "mean", "training": TUNED},
}


def study_of(folder, **audit) -> Study:
    values = {
        "seed": 1,
        "datasets": {"toy": {"about": "made", "source": "synthetic"}},
        "variants": {name: {"about": name, **entry} for name, entry in VARIANTS.items()},
        "training": {
            "seeds": 1,
            "members": 1,
            "epochs": 1,
            "batch_size": 4,
            "learning_rate": 0.01,
            "hidden": 4,
        },
        "evaluation": {"baseline": "plain"},
        "audit": {"there": ["plain", "weighted", "whole"], **audit},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return Study(folder / "params.yaml")


def pairs_of(study: Study) -> list[tuple[str, str, str, str]]:
    return [(pair.kind, pair.switch, pair.off, pair.on) for pair in switch_pairs(study)]


def test_steps_beside_are_effects_elsewhere_and_their_ends_a_method(tmp_path):
    study = study_of(tmp_path, beside=[["plain", "binary", "binary_whole"]])
    assert pairs_of(study) == [
        ("there", "weights", "plain", "weighted"),
        ("there", "reduction", "weighted", "whole"),
        ("elsewhere", "weights", "plain", "binary"),
        ("elsewhere", "reduction", "binary", "binary_whole"),
        ("whole", "weights + reduction", "plain", "binary_whole"),
        ("whole", "weights + reduction", "plain", "whole"),
    ]
    assert audited_variants(study) == ["plain", "weighted", "whole", "binary", "binary_whole"]
    assert [(pair.off, pair.on) for pair in main_pairs(switch_pairs(study))] == [("plain", "whole")]


def test_a_step_beside_of_several_switches_is_a_method(tmp_path):
    study = study_of(tmp_path, beside=[["tuned", "tuned_whole"], ["plain", "tuned"]])
    assert pairs_of(study)[2:] == [
        ("elsewhere", "hyperparameters", "plain", "tuned"),
        ("whole", "weights + reduction", "plain", "whole"),
        ("whole", "weights + reduction", "tuned", "tuned_whole"),
    ]


def test_a_way_beside_names_known_variants_and_has_a_step(tmp_path):
    with pytest.raises(SettingsError, match="unknown variant 'tunde'; did you mean 'tuned'"):
        study_of(tmp_path, beside=[["plain", "tunde"]])
    with pytest.raises(SettingsError, match=r"audit\.beside\.0: .*at least 2"):
        study_of(tmp_path, beside=[["plain"]])
