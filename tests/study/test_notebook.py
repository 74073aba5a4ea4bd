"""The runner of notebooks: all or nothing, and outputs that depend on inputs alone."""

import nbformat
import pytest

from rarenodes.settings import SettingsError
from rarenodes.study.notebook import StageFailed, run_notebook


def write_notebook(path, *sources):
    parameters = nbformat.v4.new_code_cell('word = "none"\nfolder = "scratch"')
    parameters.metadata["tags"] = ["parameters"]
    cells = [parameters, *map(nbformat.v4.new_code_cell, sources)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(notebook, path)
    return path


WRITE = "from pathlib import Path\nPath(folder, 'word.txt').write_text(word)\nprint(word)"


def run(notebook, tmp_path, word):
    return run_notebook(notebook, {"word": word}, {"folder": tmp_path / "out" / "a"}, tmp_path)


def test_outputs_take_the_place_of_earlier_ones(tmp_path):
    notebook = write_notebook(tmp_path / "book.ipynb", WRITE)
    executed = run(notebook, tmp_path, "first")
    (tmp_path / "out" / "a" / "stale.txt").write_text("left by an earlier version")
    first = executed.read_bytes()
    assert run(notebook, tmp_path, "first").read_bytes() == first
    assert sorted(p.name for p in (tmp_path / "out" / "a").iterdir()) == ["book.ipynb", "word.txt"]
    assert (tmp_path / "out" / "a" / "word.txt").read_text() == "first"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]


def test_failure_keeps_earlier_results_and_names_the_cell(tmp_path):
    run(write_notebook(tmp_path / "book.ipynb", WRITE), tmp_path, "first")
    broken = write_notebook(tmp_path / "book.ipynb", WRITE, "1 / 0  # here")
    with pytest.raises(StageFailed, match=r"ZeroDivisionError[\s\S]*1 / 0  # here[\s\S]*unchanged"):
        run(broken, tmp_path, "second")
    assert (tmp_path / "out" / "a" / "word.txt").read_text() == "first"
    assert (tmp_path / "out" / "a.failed.ipynb").exists()
    assert not (tmp_path / "out" / "a.partial").exists()
    run(write_notebook(tmp_path / "book.ipynb", WRITE), tmp_path, "third")
    assert not (tmp_path / "out" / "a.failed.ipynb").exists()


def test_unknown_parameter_is_refused(tmp_path):
    notebook = write_notebook(tmp_path / "book.ipynb", WRITE)
    with pytest.raises(SettingsError, match=r"unknown parameter 'wort'; did you mean 'word'\?"):
        run_notebook(notebook, {"wort": "x"}, {"folder": tmp_path / "a"}, tmp_path)


def test_missing_notebook(tmp_path):
    with pytest.raises(SettingsError, match="no such notebook"):
        run(tmp_path / "none.ipynb", tmp_path, "x")


def test_path_of_this_machine_in_an_output_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = write_notebook(tmp_path / "book.ipynb", "import os\nprint(os.getcwd() + '/x')")
    with pytest.raises(StageFailed, match="shows a path of this machine"):
        run(notebook, tmp_path, "x")
    assert not (tmp_path / "out" / "a").exists()
