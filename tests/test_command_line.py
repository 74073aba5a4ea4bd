"""The command line: one clear line and a non-zero exit code on what a person can mend."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from rarenodes.__main__ import main
from rarenodes.stages.score import ScoreTables
from rarenodes.study.params import Study
from rarenodes.study.results import Results

REPOSITORY = Path(__file__).parents[1]
TINY = Path(__file__).parent / "tiny" / "params.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder in which the tiny study was run without notebooks."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copy(TINY, folder)
    params = f"--params={folder / 'params.yaml'}"
    assert main([params, "run"]) == 0
    for name in ("toy", "toy_limited"):
        assert main([params, "score", name]) == 0
        assert main([params, "evaluate", name]) == 0
    assert main([params, "compare"]) == 0
    return folder


def call(folder: Path, *command: str) -> int:
    return main([f"--params={folder / 'params.yaml'}", *command])


def test_score_table_has_a_row_per_seed_and_evaluated_node(trained):
    results = Results.load(trained / "results" / "toy" / "mcm")
    assert len(results.history) == 2 * 2
    assert results.test.shape == (2, 75, 29)
    tables = ScoreTables.load(trained / "scores" / "toy")
    nodes = tables.nodes["mcm"]
    assert len(nodes) == 2 * 29
    assert len(tables.seeds["mcm"]) == 2
    positives = nodes["true_positives_half"] + nodes["false_negatives_half"]
    assert (positives == nodes["test_positives"]).all()


def test_comparison_covers_variants_contrasts_and_data_sets(trained):
    table = pd.read_csv(trained / "reports" / "compare" / "tables" / "differences.csv")
    assert set(table["dataset"]) == {"toy", "toy_limited"}
    pairs = set(zip(table["variant"], table["baseline"], strict=True))
    assert pairs == {
        ("weighted_binary", "mcm"),
        ("released_focal_gmu", "mcm"),
        ("released_focal_gmu", "weighted_binary"),
    }
    assert table.groupby("dataset").size().eq(3 * 5).all()
    assert (table["lower"] <= table["difference"]).all()
    assert (table["difference"] <= table["upper"]).all()


def test_wall_times_are_no_result(trained):
    assert len((trained / "scratch" / "run_log.csv").read_text().splitlines()) == 1 + 2 * 3 * 2
    assert not list((trained / "results").rglob("run_log*"))


def test_training_again_gives_the_same_bytes(trained):
    folder = trained / "results" / "toy" / "mcm"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert call(trained, "train", "toy", "mcm") == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_finished_runs_leave_no_checkpoints(trained):
    assert not list((trained / "scratch" / "checkpoints").glob("*/*"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("train", "toi", "mcm"), "unknown data set 'toi'; did you mean 'toy'?"),
        (("train", "toy", "mmc"), "unknown variant 'mmc'; did you mean 'mcm'?"),
        (("notebook", "train", "toy"), "train needs: dataset variant"),
        (("notebook", "evaluate", "tyo"), "unknown data set 'tyo'"),
        (("run", "--variants", "nothing"), "unknown variant 'nothing'"),
    ],
)
def test_faults_are_one_line(trained, capsys, command, message):
    assert call(trained, *command) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_stages_name_the_one_to_run_first(tmp_path, capsys):
    shutil.copy(TINY, tmp_path)
    assert call(tmp_path, "train", "toy", "mcm") == 1
    assert "run `dvc repro prepare@toy` or" in capsys.readouterr().err
    assert call(tmp_path, "prepare", "toy") == 0
    assert call(tmp_path, "score", "toy") == 1
    assert "run the stage train@toy-mcm first" in capsys.readouterr().err
    assert call(tmp_path, "compare") == 1
    assert "run the stage evaluate@toy first" in capsys.readouterr().err


def test_lists(trained, capsys):
    assert call(trained, "variants") == 0
    assert "weighted_binary" in capsys.readouterr().out
    assert call(trained, "sources") == 0
    assert "icd10cm" in capsys.readouterr().out
    assert call(trained, "check") == 0
    assert "2 data sets, 3 variants, 2 seeds of 2 members" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("study", "catalogue"),
    [
        ("params.yaml", "variants.yaml"),
        ("studies/audit/params.yaml", "studies/audit/params.yaml"),
    ],
)
def test_every_declared_variant_is_listed_with_its_source(capsys, study, catalogue):
    declared = yaml.safe_load((REPOSITORY / catalogue).read_text())["variants"]
    compared = Study(REPOSITORY / study).variants
    assert main([f"--params={REPOSITORY / study}", "variants"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    header, _, *rows = cells
    assert header == ["variant", "what it is", "source", "compared"]
    expected = [
        [name, entry["about"], entry["source"], "yes" if name in compared else ""]
        for name, entry in declared.items()
    ]
    assert sorted(rows) == sorted(expected)


def test_a_variant_of_the_catalogue_is_trained_by_name(tmp_path, capsys):
    folder = edited(tmp_path, lambda values: values.update(catalogue=["more.yaml"]))
    entry = {"about": "one network", "training": {"members": 3, "ensemble": "dropout"}}
    (folder / "more.yaml").write_text(yaml.safe_dump({"variants": {"mc_dropout": entry}}))
    assert call(folder, "prepare", "toy") == 0
    assert call(folder, "train", "toy", "mc_dropout") == 0
    assert len(Results.load(folder / "results" / "toy" / "mc_dropout").test) == 2
    assert not list((folder / "scratch" / "checkpoints").glob("*/*"))
    assert call(folder, "train", "toy", "mc_dropuot") == 1
    assert "did you mean 'mc_dropout'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("catalogue", "message"),
    [
        (None, "more.yaml: no such file"),
        ("variants: none\n", "more.yaml: variants: expected a mapping of names to variants"),
        (
            "variants: {mcm: {about: another}}\n",
            "more.yaml: variants: 'mcm' is defined differently elsewhere",
        ),
    ],
)
def test_faults_of_a_catalogue_are_one_line(tmp_path, capsys, catalogue, message):
    folder = edited(tmp_path, lambda values: values.update(catalogue=["more.yaml"]))
    if catalogue is not None:
        (folder / "more.yaml").write_text(catalogue)
    assert call(folder, "check") == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_leftovers_of_an_interrupted_run_are_not_taken_for_results(trained):
    partial = trained / "results" / "toy" / "mcm.partial"
    partial.mkdir()
    (partial / "stale.txt").write_text("left by an interrupted run")
    assert call(trained, "train", "toy", "mcm") == 0
    assert not (trained / "results" / "toy" / "mcm" / "stale.txt").exists()


def test_notebooks_take_no_other_file_of_parameters(trained, capsys):
    shutil.copy(trained / "params.yaml", trained / "other.yaml")
    arguments = [f"--params={trained / 'other.yaml'}", "notebook", "train", "toy", "mcm"]
    assert main(arguments) == 1
    assert "notebooks read the params.yaml of the study's folder" in capsys.readouterr().err


def edited(tmp_path: Path, change) -> Path:
    values = yaml.safe_load(TINY.read_text())
    values["datasets"].pop("toy_limited")
    change(values)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return tmp_path


def one_variant(values):
    values["variants"] = {"mcm": values["variants"]["mcm"]}
    values["evaluation"]["contrasts"] = {}


def test_one_variant_is_evaluated_but_not_compared(tmp_path, capsys):
    folder = edited(tmp_path, one_variant)
    assert call(folder, "run") == 0
    assert call(folder, "score", "toy") == 0
    assert call(folder, "evaluate", "toy") == 0
    assert call(folder, "compare") == 1
    assert "variants: a comparison needs at least two, found one" in capsys.readouterr().err


def test_without_probabilities_evaluation_says_what_to_set(tmp_path, capsys):
    folder = edited(tmp_path, lambda values: values["training"].update(keep_probabilities=False))
    assert call(folder, "run") == 0
    assert call(folder, "score", "toy") == 0
    assert call(folder, "evaluate", "toy") == 1
    assert "set training.keep_probabilities to true" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["training"].update(seeds=1),
        lambda values: values["training"].update(fit_on=["train", "valid"]),
        lambda values: values["datasets"]["toy"].update(options={"multi_parent": 0.3}),
        lambda values: values["datasets"]["toy"].update(options={"nodes": 5, "examples": 3000}),
    ],
    ids=["one seed", "train + valid", "a DAG", "no rare nodes"],
)
def test_unusual_studies_run_to_the_end(tmp_path, change):
    folder = edited(tmp_path, change)
    assert call(folder, "run") == 0
    assert call(folder, "score", "toy") == 0
    assert call(folder, "evaluate", "toy") == 0
    assert call(folder, "compare") == 0


def test_another_variant_changes_no_other_comparison(trained, tmp_path):
    def without_contrasts(values):
        values["evaluation"]["contrasts"] = {}
        values["variants"].pop("released_focal_gmu")

    folder = edited(tmp_path, without_contrasts)
    assert call(folder, "run") == 0
    assert call(folder, "score", "toy") == 0
    assert call(folder, "evaluate", "toy") == 0
    key = ["measure", "nodes", "at"]
    numbers = [*key, "difference", "lower", "upper", "p"]
    path = Path("reports", "evaluate", "toy", "tables", "differences.csv")
    fewer, more = pd.read_csv(folder / path), pd.read_csv(trained / path)
    more = more[(more["variant"] == "weighted_binary") & (more["baseline"] == "mcm")]
    pd.testing.assert_frame_equal(
        fewer[numbers].sort_values(key, ignore_index=True),
        more[numbers].sort_values(key, ignore_index=True),
    )


def test_how_deep_predictions_reach_agrees_with_the_scores_of_nodes(trained):
    tables = trained / "reports" / "evaluate" / "toy" / "tables"
    reached, short = pd.read_csv(tables / "reach.csv"), pd.read_csv(tables / "short.csv")
    counts = ScoreTables.load(trained / "scores" / "toy").nodes["mcm"]
    for at, name in (("0.5", "half"), ("tuned", "tuned")):
        columns = [f"{kind}_{name}" for kind in ("true_positives", "false_negatives")]
        hits, misses = counts.groupby("seed")[columns].sum().to_numpy().T
        row = reached[(reached["variant"] == "mcm") & (reached["at"].astype(str) == at)]
        row = row[row["examples"] == "all"].iloc[0]
        assert row["hierarchical_recall"] == pytest.approx(
            (hits / (hits + misses)).mean(), abs=1e-5
        )
        assert row["levels_short"] == pytest.approx(
            row["true_depth"] - row["reached_depth"], abs=1e-4
        )
    by = ["variant", "at", "examples"]
    assert short.groupby(by)["share"].sum().to_numpy() == pytest.approx(1, abs=1e-5)
    ends = short[short["short"] == "0"].set_index(by)["share"]
    assert ends.to_numpy() == pytest.approx(
        reached.set_index(by).loc[ends.index, "to_the_end"].to_numpy(), abs=1e-5
    )


def test_a_reader_who_has_read_enough_is_no_fault():
    command = f"set -o pipefail; {sys.executable} -m rarenodes variants | head -1"
    run = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0
    assert run.stdout.startswith("| variant")
    assert run.stderr == ""
