"""The commands around own data and models: check, fit and predict."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
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
    """A folder in which one variant of the tiny study was trained."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copy(TINY, folder)
    assert call(folder, "prepare", "toy") == 0
    assert call(folder, "train", "toy", "mcm") == 0
    return folder


def call(folder: Path, *command: str) -> int:
    return main([f"--params={folder / 'params.yaml'}", *command])


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
    assert lines[0].endswith("8 data sets, 2 variants, 1 seeds of 2 members")
    assert all(line.startswith("note: ") for line in lines[1:])
    assert any("a tree of 11 nodes and 10 edges" in line for line in lines)
    assert any("MiB of memory (conditional)" in line for line in lines)
    assert sum("1 training of networks: at least " in line for line in lines) == 8
    assert call(own, "check", "arff") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert "animals_test.arff: 28 examples, 6 features; a tree of 11 nodes and 10" in lines[0]
    assert call(own, "check", "half_way") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert any("labels stop above the bottom" in line for line in lines)
    assert sum("are left out, as the option unknown_below says" in line for line in lines) == 1
    assert call(own, "check", "features") == 0
    assert "texts" not in "".join(capsys.readouterr().out.splitlines()[1:])


def test_the_file_to_start_from_needs_no_other(tmp_path, capsys):
    values = yaml.safe_load((EXAMPLES / "start.yaml").read_text())
    catalogue = yaml.safe_load((REPOSITORY / "variants.yaml").read_text())["variants"]
    assert {name: catalogue[name] for name in values["variants"]} == values["variants"]
    for name in ("texts.csv", "animals_edges.csv"):
        shutil.copy(EXAMPLES / name, tmp_path)
    shutil.copy(EXAMPLES / "start.yaml", tmp_path / "params.yaml")
    assert call(tmp_path, "check") == 0
    assert "(a stratified split)" in capsys.readouterr().out
    values["training"]["epochs"] = 2
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    assert call(tmp_path, "run") == 0
    table = capsys.readouterr().out
    head = next(line for line in table.splitlines() if "data set" in line)
    assert "average precision of rare nodes" in head
    assert all(f"| texts      | {variant} " in table for variant in values["variants"])
    best = re.search(r"^texts: rare nodes are ranked best by (\w+)$", table, re.MULTILINE)[1]
    assert f"fit texts {best} --output FOLDER" in table


def test_a_committee_of_own_variants_is_scored_and_kept(tmp_path, capsys):
    values = yaml.safe_load((EXAMPLES / "start.yaml").read_text())
    catalogue = yaml.safe_load((REPOSITORY / "variants.yaml").read_text())["variants"]
    for name in ("texts.csv", "animals_edges.csv"):
        shutil.copy(EXAMPLES / name, tmp_path)
    more = {name: catalogue[name] for name in ("neighbours_hidden", "committee_hidden")}
    values["variants"] = values["variants"] | more
    values["committees"] = ["committee_hidden"]
    values["training"]["epochs"] = 2
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert call(tmp_path, "run", "--variants", "mcm", "committee_hidden") == 0
    table = capsys.readouterr().out
    assert "| texts      | committee_hidden |" in table
    assert "linear_conditional" not in table
    folder = tmp_path / "model"
    assert call(tmp_path, "fit", "texts", "committee_hidden", "--output", str(folder)) == 0
    dataset = Dataset.load(tmp_path / "processed" / "texts")
    expected = Results.load(tmp_path / "combined" / "texts" / "committee_hidden").test[0]
    found = Model.load(folder).probabilities([dataset.texts[i] for i in dataset.split["test"]])
    np.testing.assert_allclose(found[:, dataset.evaluated], expected, rtol=1e-5)
    values["training"]["keep_probabilities"] = False
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert call(tmp_path, "run") == 1
    assert "'committee_hidden' is of probabilities that are not kept" in capsys.readouterr().err


def test_check_fails_on_what_will_fail(own, tmp_path, capsys):
    shutil.copytree(own, tmp_path / "study")
    path = tmp_path / "study" / "texts.csv"
    path.write_text(path.read_text().replace(",dog,", ",dgo,"))
    assert call(tmp_path / "study", "check") == 1
    output, error = capsys.readouterr()
    assert "error: texts: " in output
    assert "unknown node 'dgo', in 4 rows; did you mean 'dog'?" in output
    assert error == "error: 1 to mend, see the lines that begin with error\n"


def test_check_counts_what_the_labels_of_clus_files_leave_open(own, tmp_path, capsys):
    shutil.copytree(own, tmp_path / "study")
    path = tmp_path / "study" / "params.yaml"
    values = yaml.safe_load(path.read_text())
    values["datasets"]["arff"]["options"]["unknown_below"] = True
    path.write_text(yaml.safe_dump(values))
    file = tmp_path / "study" / "animals_train.arff"
    text = file.read_text()
    label = text.splitlines()[-1].rsplit(",", 1)[1]
    above = label.split("@")[0].rsplit("/", 1)[0]
    file.write_text(text.rstrip().removesuffix(label) + above + "\n")
    assert call(tmp_path / "study", "check", "arff") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "left open" in line]
    (line,) = said
    assert line.endswith(
        "left open below labels that stop half-way: in no loss and no score (option unknown_below)"
    )


def test_check_names_the_first_fault_of_a_clus_file(own, tmp_path, capsys):
    shutil.copytree(own, tmp_path / "study")
    path = tmp_path / "study" / "animals_train.arff"
    path.write_text(path.read_text().rstrip().rpartition(",")[0] + "\n")
    assert call(tmp_path / "study", "check", "arff", "features") == 1
    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: arff: {path}, line ")
    assert line.endswith("one for each attribute: the file seems cut off, fetch it again")
    assert "note: features: " in output


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


def test_check_names_prepared_data_that_are_damaged(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "study")
    path = tmp_path / "study" / "data" / "processed" / "toy" / "dataset.json"
    path.write_text(path.read_text().replace("synthetic", "synthetik"))
    assert call(tmp_path / "study", "check") == 1
    (line,) = [s for s in capsys.readouterr().out.splitlines() if s.startswith("error: ")]
    assert line.startswith("error: toy: ")
    assert "dataset.json or texts.json: not what its checksum says; expected what `prepare`" in line


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


def test_the_stage_keeps_the_model_that_fit_keeps_and_its_card_among_the_reports(trained, tmp_path):
    assert call(trained, "fit", "toy", "mcm", "--output", str(tmp_path / "model")) == 0
    assert call(trained, "model", "toy", "mcm") == 0
    kept, report = (trained / of / "toy" / "mcm" for of in ("models", "reports/models"))
    for path in (tmp_path / "model").rglob("*.*"):
        assert (kept / path.relative_to(tmp_path / "model")).read_bytes() == path.read_bytes()
    assert [path.name for path in report.iterdir()] == ["card.md"]
    assert (report / "card.md").read_bytes() == (kept / "card.md").read_bytes()
    Model.load(kept)


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


def test_an_example_of_which_nothing_more_is_known_belongs_to_the_root(own, tmp_path, capsys):
    output = tmp_path / "out.csv"
    texts = str(own / "new_texts.txt")
    command = ["predict", str(own / "model"), texts, "--confidence", "1", "--output", str(output)]
    assert main(command) == 0
    said = "3 nodes for 3 examples; of 3 nothing is known at that confidence but the top: --top 1 --leaves"
    assert said in capsys.readouterr().out
    found = pd.read_csv(output)
    assert found[["node", "probability"]].to_numpy().tolist() == [["animal", 1.0]] * 3


def test_examples_for_which_nothing_is_predicted_are_counted(own, tmp_path, capsys):
    model = Model.load(own / "model")
    never = {scope: np.full(len(model.hierarchy), 1.0) for scope in model.thresholds}
    replace(model, thresholds=never).save(tmp_path / "strict")
    texts, output = str(own / "new_texts.txt"), tmp_path / "out.csv"
    command = ["predict", str(tmp_path / "strict"), texts, "--threshold", "node"]
    assert main([*command, "--output", str(output)]) == 0
    assert "0 nodes for 3 examples; none for 3 of them" in capsys.readouterr().out
    assert output.read_text() == "row,node,name,path,probability\n"
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out == "row,node,name,path,probability\n"
    assert "0 nodes for 3 examples; none for 3 of them" in err


def test_fit_says_that_a_model_was_replaced(own, tmp_path, capsys):
    command = ("fit", "texts", "linear_conditional", "--output", str(tmp_path / "model"))
    assert call(own, *command) == 0
    assert "in the place of" not in capsys.readouterr().out
    assert call(own, *command) == 0
    assert f"written: {tmp_path / 'model'}, in the place of the model" in capsys.readouterr().out


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
        (
            ("run", "--variants", "committee_equal"),
            "committees: 'committee_equal' is not named there",
        ),
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


def test_a_committee_of_the_catalogue_is_not_its_own_member(tmp_path, capsys):
    for name in ("texts.csv", "animals_edges.csv"):
        shutil.copy(EXAMPLES / name, tmp_path)
    values = yaml.safe_load((EXAMPLES / "start.yaml").read_text())
    circle = {
        one: {"about": "one of two", "committee": {"members": [other, "mcm"]}}
        for one, other in (("first", "second"), ("second", "first"))
    }
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"variants": circle}))
    values["catalogue"] = ["more.yaml"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert call(tmp_path, "fit", "texts", "first", "--output", str(tmp_path / "model")) == 1
    assert "a committee cannot be its own member, found" in capsys.readouterr().err


def test_models_that_share_a_training_can_be_fitted_at_the_same_time(tmp_path):
    """Each waits for the other's training, and none removes what the other goes on from."""
    values = yaml.safe_load((EXAMPLES / "start.yaml").read_text())
    for name in ("texts.csv", "animals_edges.csv"):
        shutil.copy(EXAMPLES / name, tmp_path)
    values["training"]["epochs"] = 3
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    command = [sys.executable, "-m", "rarenodes", "--params", str(tmp_path / "params.yaml")]
    started = [
        subprocess.Popen(
            [*command, "fit", "texts", "mcm", "--output", str(tmp_path / f"model-{i}")],
            stderr=subprocess.PIPE, text=True,
        )
        for i in range(4)
    ]  # fmt: skip
    errors = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, errors
    models = [Model.load(tmp_path / f"model-{i}") for i in range(4)]
    assert len({model.predictor.ensemble.weights[0].sum().item() for model in models}) == 1
    left = [path.name for path in (tmp_path / "scratch" / "checkpoints").iterdir()]
    assert all(name.endswith(".lock") for name in left)
