"""Every table of an evaluation and of a comparison, beside what it was when somebody looked at it.

Results are made up, not trained, so that tables are the same on every kind of processor. After a change
that is meant, `PYTHONPATH=tests python tests/stages/test_table_regressions.py` writes them anew: read the
difference.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from made_up import TRAINING
from scipy.special import expit

from rarenodes.datasets import load_dataset
from rarenodes.stages.run import run_without_notebook
from rarenodes.study.params import Study
from rarenodes.study.results import Results, name_rows_and_columns

KEPT = Path(__file__).parents[1] / "golden" / "tables"
# Of each variant: what a positive adds to a logit, and to that of a rare node; and what lies on all.
STRENGTHS = {"mcm": (2.0, 1.0, -2.0), "weighted": (1.8, 1.8, -0.5), "released": (2.0, 1.0, -1.0)}
PARAMETERS = {
    "seed": 1,
    "datasets": {
        name: {
            "about": "made",
            "source": "synthetic",
            "options": {"nodes": 24, "examples": 160, "imbalance": imbalance},
        }
        for name, imbalance in (("one", 0.6), ("two", 1.0))
    },
    "variants": {name: {"about": name} for name in STRENGTHS},
    "training": TRAINING,
    "evaluation": {
        "baseline": "mcm",
        "contrasts": {"released": "weighted"},
        "resamples": 100,
        "precision_at": [2],
    },
}


def write_tables(folder: Path) -> Path:
    """Evaluate and compare made-up results in a folder; where the reports are."""
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMETERS))
    study = Study(folder / "params.yaml")
    for place, name in enumerate(study.parameters.datasets):
        options = study.dataset(name).options
        dataset = load_dataset("synthetic", options=options, seed=place)
        dataset.save(study.prepared(name))
        targets = dataset.targets.toarray()[:, dataset.evaluated]
        rare = dataset.counts("train")[dataset.evaluated] <= 10
        for variant, (common_strength, rare_strength, all_of_them) in STRENGTHS.items():
            strength = np.where(rare, rare_strength, common_strength)
            of_seeds = []
            for seed in range(3):
                noise = np.random.default_rng([place, seed]).normal(size=targets.shape)
                own = np.random.default_rng([place, seed, len(variant)]).normal(size=targets.shape)
                of_seeds.append(expit(noise + 0.3 * own + strength * targets + all_of_them))
            # To few digits, so that no order hangs on the last bit.
            all_seeds = np.stack(of_seeds).round(4).astype(np.float32)
            results = study.results(name, variant)
            Results(
                history=pd.DataFrame({"seed": [0, 1, 2], "epoch": 1, "train_loss": 0.5}),
                test=all_seeds[:, dataset.split["test"]],
                valid=all_seeds[:, dataset.split["valid"]],
            ).save(results)
            name_rows_and_columns(dataset, results)
        for stage in ("score", "evaluate"):
            run_without_notebook(study, stage, {"dataset": name})
    run_without_notebook(study, "scores", {})
    run_without_notebook(study, "compare", {})
    return folder / "reports"


def tables_of(reports: Path) -> dict[str, Path]:
    """By a name that says from where: all CSV files of the reports."""
    return {
        "-".join(path.relative_to(reports).parts).replace("-tables", ""): path
        for path in sorted(reports.rglob("*.csv"))
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    return tables_of(write_tables(tmp_path_factory.mktemp("study")))


def test_there_are_the_same_tables(made):
    assert sorted(made) == sorted(path.name for path in KEPT.glob("*.csv"))


@pytest.mark.parametrize("name", sorted(path.name for path in KEPT.glob("*.csv")))
def test_a_table_is_what_it_was(made, name):
    found, kept = (pd.read_csv(path) for path in (made[name], KEPT / name))
    pd.testing.assert_frame_equal(found, kept, check_exact=False, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name, path in tables_of(write_tables(Path(temporary))).items():
            shutil.copyfile(path, KEPT / name)
    sys.exit(print(f"written: {KEPT}"))
