"""The command line: one clear line and a non-zero exit code on what a person can mend."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from rarenodes import Dataset, Model
from rarenodes.__main__ import main
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
        assert main([params, "evaluate", name]) == 0
    assert main([params, "compare"]) == 0
    return folder


def call(folder: Path, *command: str) -> int:
    return main([f"--params={folder / 'params.yaml'}", *command])


def test_score_table_has_a_row_per_seed_and_evaluated_node(trained):
    results = Results.load(trained / "results" / "toy" / "mcm")
    assert len(results.nodes) == 2 * 29
    assert len(results.seeds) == 2
    assert len(results.history) == 2 * 2
    assert results.probabilities.shape == (2, 75, 29)
    positives = results.nodes["true_positives_half"] + results.nodes["false_negatives_half"]
    assert (positives == results.nodes["test_positives"]).all()


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
    assert not list((trained / "scratch" / "checkpoints").glob("*"))


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
    assert "run the stage prepare@toy first" in capsys.readouterr().err
    assert call(tmp_path, "prepare", "toy") == 0
    assert call(tmp_path, "evaluate", "toy") == 1
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
    ("study", "files"),
    [
        ("params.yaml", ("params.yaml", "variants.yaml")),
        ("studies/audit/params.yaml", ("studies/audit/params.yaml",)),
    ],
)
def test_every_declared_variant_is_listed_with_its_source(capsys, study, files):
    declared = [yaml.safe_load((REPOSITORY / file).read_text())["variants"] for file in files]
    assert main([f"--params={REPOSITORY / study}", "variants"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    header, _, *rows = cells
    assert header == ["variant", "what it is", "source", "compared"]
    expected = [
        [name, entry["about"], entry["source"], "yes" if i == 0 else ""]
        for i, entries in enumerate(declared)
        for name, entry in entries.items()
    ]
    assert rows == expected


def test_a_variant_of_the_catalogue_is_trained_by_name(tmp_path, capsys):
    folder = edited(tmp_path, lambda values: values.update(catalogue=["more.yaml"]))
    entry = {"about": "one network", "training": {"members": 3, "ensemble": "dropout"}}
    (folder / "more.yaml").write_text(yaml.safe_dump({"variants": {"mc_dropout": entry}}))
    assert call(folder, "prepare", "toy") == 0
    assert call(folder, "train", "toy", "mc_dropout") == 0
    assert len(Results.load(folder / "results" / "toy" / "mc_dropout").seeds) == 2
    assert not list((folder / "scratch" / "checkpoints").glob("*"))
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
    assert call(folder, "evaluate", "toy") == 0
    assert call(folder, "compare") == 1
    assert "variants: a comparison needs at least two, found one" in capsys.readouterr().err


def test_without_probabilities_evaluation_says_what_to_set(tmp_path, capsys):
    folder = edited(tmp_path, lambda values: values["training"].update(keep_probabilities=False))
    assert call(folder, "run") == 0
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
    assert call(folder, "evaluate", "toy") == 0
    assert call(folder, "compare") == 0


def test_another_variant_changes_no_other_comparison(trained, tmp_path):
    def without_contrasts(values):
        values["evaluation"]["contrasts"] = {}
        values["variants"].pop("released_focal_gmu")

    folder = edited(tmp_path, without_contrasts)
    assert call(folder, "run") == 0
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


# --- own data: check, fit, predict ----------------------------------------------------------------

EXAMPLES = REPOSITORY / "data" / "examples"


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder with the example files, their study, and a model of texts."""
    folder = tmp_path_factory.mktemp("own")
    for path in EXAMPLES.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    values = yaml.safe_load((folder / "params.yaml").read_text())
    values["catalogue"] = [str(REPOSITORY / "variants.yaml")]
    values["training"]["epochs"] = 5
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert call(folder, "fit", "texts", "conditional", "--output", str(folder / "model")) == 0
    return folder


def test_check_opens_the_files_of_own_data(own, capsys):
    assert call(own, "check") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("3 data sets, 2 variants, 1 seeds of 2 members")
    assert all(line.startswith("note: ") for line in lines[1:])
    assert any("a tree of 11 nodes and 10 edges" in line for line in lines)
    assert any("MiB of memory (conditional)" in line for line in lines)
    assert call(own, "check", "features") == 0
    assert "texts" not in "".join(capsys.readouterr().out.splitlines()[1:])


def test_check_fails_on_what_will_fail(own, tmp_path, capsys):
    shutil.copytree(own, tmp_path / "study")
    path = tmp_path / "study" / "texts.csv"
    path.write_text(path.read_text().replace(",dog,", ",dgo,"))
    assert call(tmp_path / "study", "check") == 1
    output, error = capsys.readouterr()
    assert "error: texts: " in output
    assert "unknown node 'dgo', in 4 rows; did you mean 'dog'?" in output
    assert error == "error: 1 to mend, see the lines that begin with error\n"


def test_check_names_a_training_that_does_not_fit_into_memory(own, tmp_path, capsys):
    shutil.copytree(own, tmp_path / "study")
    path = tmp_path / "study" / "params.yaml"
    path.write_text(
        path.read_text().replace("hidden: 32", "hidden: 900000").replace("layers: 1", "layers: 3")
    )
    assert call(tmp_path / "study", "check", "texts") == 1
    assert "error: texts: texts conditional: training." in capsys.readouterr().out


def test_check_looks_at_prepared_data(trained, capsys):
    assert call(trained, "check") == 0
    output = capsys.readouterr().out
    assert "300 examples, 16 features; a tree of 30 nodes" in output


def test_check_says_what_is_not_prepared(tmp_path, capsys):
    shutil.copy(TINY, tmp_path)
    assert call(tmp_path, "check") == 0
    assert "from the source synthetic, not prepared yet" in capsys.readouterr().out


def test_a_model_is_the_first_run_of_the_study(trained, tmp_path, capsys):
    folder = tmp_path / "model"
    assert call(trained, "fit", "toy", "mcm", "--output", str(folder)) == 0
    assert f"written: {folder}" in capsys.readouterr().out
    dataset = Dataset.load(trained / "data" / "processed" / "toy")
    expected = Results.load(trained / "results" / "toy" / "mcm").test[0]
    found = Model.load(folder).probabilities(dataset.features[dataset.split["test"]])
    np.testing.assert_array_equal(found[:, dataset.evaluated], expected)


def test_predictions_are_written_without_a_study(own, tmp_path, monkeypatch, capsys):
    shutil.copytree(own / "model", tmp_path / "carried")
    monkeypatch.chdir(tmp_path)
    texts = ["a puppy that barks", "hoots at night", "fins, in the river"]
    Path("new.txt").write_text("\n".join(texts))
    pd.DataFrame({"text": texts}).to_csv("new.csv", index=False)
    written = {}
    for name in ("new.txt", "new.csv"):
        command = ["predict", "carried", name, "--top", "2", "--output", f"{name}.out"]
        assert main(command) == 0
        written[name] = Path(f"{name}.out").read_bytes()
    assert written["new.txt"] == written["new.csv"]
    assert "written: new.csv.out, 6 nodes for 3 examples" in capsys.readouterr().out
    table = pd.read_csv("new.txt.out")
    assert list(table.columns) == ["row", "node", "name", "path", "probability"]
    expected = Model.load(own / "model").predict(texts, top=2)
    assert table["node"].tolist() == expected["node"].tolist()
    np.testing.assert_allclose(table["probability"], expected["probability"], rtol=1e-5)
    assert main(["predict", "carried", "new.txt", "--top", "2"]) == 0
    assert capsys.readouterr().out.encode() == written["new.txt"]


def test_examples_for_which_nothing_is_predicted_are_counted(own, tmp_path, capsys):
    output = tmp_path / "out.csv"
    texts = str(own / "new_texts.txt")
    command = ["predict", str(own / "model"), texts, "--confidence", "1", "--output", str(output)]
    assert main(command) == 0
    assert "0 nodes for 3 examples; none for 3 of them" in capsys.readouterr().out
    assert output.read_text() == "row,node,name,path,probability\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("predict", "model", "features.csv"), "unknown column 'text'"),
        (("predict", "model", "none.txt"), "none.txt: no such file"),
        (("predict", "nowhere", "new_texts.txt"), "nowhere holds no model"),
        (("predict", "model", "new_texts.txt", "--confidence", "2"), "at most 1, found 2"),
        (
            ("predict", "model", "new_texts.txt", "--column", "no", "--top", "0"),
            "expected at least 1",
        ),
        (("fit", "texts", "forest", "--output", "m"), "of 'network' and 'linear' alone"),
        (("fit", "texts", "committee_equal", "--output", "m"), "of 'network' and 'linear' alone"),
        (("fit", "text", "conditional", "--output", "m"), "did you mean 'texts'?"),
        (("fit", "texts", "conditional", "--output", "m", "--seed", "-1"), "expected 0 or more"),
        (("fit", "texts", "conditional", "--output", "."), "found something that is no model"),
    ],
)
def test_faults_of_models_are_one_line(own, monkeypatch, capsys, command, message):
    monkeypatch.chdir(own)
    assert main(list(command)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("m").exists()


def test_data_that_changed_since_they_were_prepared_are_noticed(own, tmp_path, caplog):
    shutil.copytree(own, tmp_path / "study")
    assert call(tmp_path / "study", "prepare", "texts") == 0
    path = tmp_path / "study" / "texts.csv"
    path.write_text(path.read_text().replace("barks and wags", "growls and wags"))
    output = str(tmp_path / "model")
    assert call(tmp_path / "study", "fit", "texts", "linear_conditional", "--output", output) == 0
    assert "the data changed since they were prepared" in caplog.text
