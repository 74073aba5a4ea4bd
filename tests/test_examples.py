"""Examples that readers are shown are there, are quoted as they stand, and run."""

import doctest
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from rarenodes.__main__ import main

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = REPOSITORY / "data" / "examples"
README = (REPOSITORY / "README.md").read_text()
SECTION = README.partition("\n## Your own texts: check, fit, predict\n")[2].partition("\n## ")[0]
LINK = re.compile(r"\[`([^`]+)`\]\(data/examples/([^)]+)\)")


def example_files() -> list[str]:
    """Files that are committed; what a run leaves beside them is in folders, or hidden."""
    return sorted(p.name for p in EXAMPLES.iterdir() if p.is_file() and p.name[0] != ".")


def table_rows() -> dict[str, tuple[str, ...]]:
    """By entry of the examples' `params.yaml` the files that the README's table names with it."""
    lines = [line for line in SECTION.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    found = {}
    for _, files, entry in cells:
        if name := re.match(r"`(\w+)`", entry):
            found[name[1]] = tuple(name for _, name in LINK.findall(files))
    return found


def quoted_rows() -> list[tuple[str, list[str]]]:
    """Files of the sentence before blocks of rows, each with its rows."""
    sentence = next(line for line in SECTION.splitlines() if "whose third column" in line)
    blocks = re.findall(r"^```text\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    names = [name for _, name in LINK.findall(sentence)]
    return [(name, block.splitlines()) for name, block in zip(names, blocks, strict=True)]


def entries() -> dict[str, dict]:
    return yaml.safe_load((EXAMPLES / "params.yaml").read_text())["datasets"]


@pytest.mark.parametrize("name", example_files())
def test_the_readme_leads_to_every_example_file(name):
    assert f"](data/examples/{name})" in SECTION


def test_the_readme_names_no_example_file_that_is_not_there():
    for words, name in LINK.findall(README):
        assert (EXAMPLES / name).is_file()
        assert words in (name, f"data/examples/{name}")


def test_every_entry_of_the_examples_stands_beside_its_files():
    table = table_rows()
    assert set(table) == set(entries())
    for name, entry in entries().items():
        files = {v for v in entry["options"].values() if (EXAMPLES / str(v)).is_file()}
        assert set(table[name]) <= files, name
        # The edges of the first row are those of others, too, which do not name them again.
        assert files - set(table[name]) <= set(table["texts"]), name
    assert len(table["texts"]) == 2


def test_options_beside_an_entry_are_those_that_it_sets():
    for entry, options in re.findall(r"\| `(\w+)`: ((?:no )?`[^|]+`) \|", SECTION):
        given = entries()[entry]
        if option := re.fullmatch(r"`(\w+)`", options):
            assert option[1] in given["options"]
        elif option := re.fullmatch(r"no `(\w+)`", options):
            assert option[1] not in given["options"]
        else:
            key, value = options.strip("`").split(": ")
            assert given[key] == value


def test_quoted_rows_occur_in_their_files_from_the_first_on():
    quoted = quoted_rows()
    assert len(quoted) == 2
    for name, rows in quoted:
        lines = (EXAMPLES / name).read_text().splitlines()
        assert rows[0] == lines[0]
        assert 3 <= len(rows) <= 4
        assert set(rows) <= set(lines), name


# --- what runs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory) -> Path:
    """Where a reader stands who gave the section's commands, with the example files as their own."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(EXAMPLES, folder / "data" / "examples")
    shutil.copytree(EXAMPLES, folder / "my")
    shutil.copy(EXAMPLES / "new_texts.txt", folder)
    [source, target] = re.search(r"`cp (\S+) (\S+)`", SECTION).groups()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copy(source, target)
        for command in commands():
            assert main(command) == 0, command
    return folder


def commands() -> list[list[str]]:
    """Arguments of the section's commands, in order."""
    lines = re.findall(r"^python -m rarenodes (.*)$", SECTION, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def python_of_readme() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_readme_lead_to_predictions(readers_folder):
    known = ("check", "run", "fit", "predict")
    assert [word for words in commands() for word in words if word in known] == list(known)
    predictions = pd.read_csv(readers_folder / "predictions.csv")
    texts = (EXAMPLES / "new_texts.txt").read_text().splitlines()
    # One leaf for each.
    assert predictions["row"].tolist() == list(range(len(texts)))
    edges = pd.read_csv(EXAMPLES / "animals_edges.csv")
    assert not predictions["node"].isin(edges["parent"]).any()
    assert predictions["node"].isin(edges["child"]).all()


@pytest.mark.parametrize("code", python_of_readme(), ids=lambda code: code.splitlines()[0])
def test_python_of_the_readme_runs(readers_folder, monkeypatch, code):
    monkeypatch.chdir(readers_folder)
    exec(compile(code, "README.md", "exec"), {})


def test_examples_of_the_site_are_true(readers_folder, monkeypatch):
    monkeypatch.chdir(readers_folder)
    text = (REPOSITORY / "site" / "examples.md").read_text()
    fitted = re.findall(r"^python -m rarenodes (.*)$", text, re.MULTILINE)
    assert [shlex.split(line) for line in fitted] == [c for c in commands() if "fit" in c]
    examples = re.sub(r"^```.*$", "", text, flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(examples, {}, "examples.md", "site/examples.md", 0)
    results = doctest.DocTestRunner().run(test)
    assert results.attempted > 35
    assert results.failed == 0
