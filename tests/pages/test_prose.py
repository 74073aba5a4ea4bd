"""Prose says what its values say, and blocks in files are made anew and checked."""

import json
import math

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from rarenodes.pages import prose
from rarenodes.settings import SettingsError


@pytest.fixture
def results(tmp_path):
    """Results with one table, next to a README, and a template that is there anyway."""
    tables = tmp_path / "reports" / "compare" / "tables"
    tables.mkdir(parents=True)
    (tables / "main.csv").write_text("variant,recall\nmcm,0.25\nweighted,0.5\n")
    return tmp_path


def readme(folder, text):
    path = folder / "README.md"
    path.write_text(text)
    return path


BLOCK = "<!-- from reports/compare: main_table -->\n{}\n<!-- end -->"
TABLE = "| variant   |   recall |\n|:----------|---------:|\n| mcm       |     0.25 |\n| weighted  |     0.5  |"


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.1236, "+0.124"),
        (-0.1236, "−0.124"),
        (0.0004, "0.000"),
        (-0.0004, "0.000"),
        (0.0, "0.000"),
    ],
)
def test_signs_are_shown_where_a_digit_is(value, shown):
    assert prose.signed(value) == shown


@pytest.mark.parametrize("missing", [None, math.nan, np.float64("nan")])
def test_what_is_missing_is_a_dash_and_has_no_factor(missing):
    assert prose.score(missing) == prose.signed(missing) == prose.percent(missing) == "–"
    assert prose.factor(missing, 0.1) == prose.factor(0.1, missing) == ""


@pytest.mark.parametrize(
    ("on", "off", "shown"),
    [
        (0.84, 0.4, "×2.1"),
        (0.32, 0.4, "×0.8"),
        (0.41, 0.4, ""),  # ×1.0 says nothing
        (0.396, 0.4, ""),
        (0.001, 0.4, ""),  # nor does ×0.0
        (0.3, 0.0, ""),
    ],
)
def test_factors(on, off, shown):
    assert prose.factor(on, off) == shown


def test_shares_and_lists():
    assert prose.percent(0.126) == "13 %"
    assert prose.percent(0.126, 1) == "12.6 %"
    assert [prose.listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_one_value_is_picked_or_none():
    table = pd.DataFrame({"variant": ["a", "b", "b"], "at": ["half"] * 3, "score": [1.0, 2.0, 3.0]})
    assert prose.pick(table, "score", variant="a", at="half") == 1.0
    with pytest.raises(SettingsError, match=r"score: 2 rows with variant b: expected one"):
        prose.pick(table, "score", variant="b")
    with pytest.raises(SettingsError, match=r"score: 0 rows with variant c: expected one"):
        prose.pick(table, "score", variant="c")
    with pytest.raises(SettingsError, match=r"unknown column 'varian'; did you mean 'variant'"):
        prose.pick(table, "score", varian="a")


def test_values_are_left_for_others_without_nan_or_numpy(tmp_path):
    values = {"a": np.float64(0.5), "b": [np.int64(2), math.nan, math.inf], "c": np.bool_(True)}
    prose.write_values(values, tmp_path)
    written = json.loads((tmp_path / "values.json").read_text())
    assert written == {"a": 0.5, "b": [2, None, None], "c": True}
    assert prose.read_values(tmp_path) == {**written, "tables": {}}


def test_a_template_without_its_value_is_refused():
    with pytest.raises(SettingsError, match=r"template main_table: 'tables' is undefined"):
        prose.render("main_table", {})


def test_an_unknown_template_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match=r"unknown template 'main_tabel'; did you mean 'main_"):
        prose.render("main_tabel", {})


# --- blocks -------------------------------------------------------------------------------------


def test_a_block_is_made_anew_and_then_stands(results):
    path = readme(results, f"Before.\n\n{BLOCK.format('old')}\n\nAfter.\n")
    assert prose.check(path) == ["README.md: block main_table is stale: refresh it"]
    assert path.read_text().count("old") == 1  # to check changes nothing
    assert prose.refresh(path) == ["main_table"]
    assert path.read_text() == f"Before.\n\n{BLOCK.format(TABLE)}\n\nAfter.\n"
    assert prose.check(path) == []
    assert prose.refresh(path) == []


def test_a_changed_number_is_found_on_either_side(results):
    path = readme(results, BLOCK.format(TABLE))
    assert prose.check(path) == []
    path.write_text(path.read_text().replace("0.25", "0.26"))
    assert prose.check(path)
    prose.refresh(path)
    table = results / "reports" / "compare" / "tables" / "main.csv"
    table.write_text(table.read_text().replace("0.25", "0.125"))
    assert prose.check(path)
    prose.refresh(path)
    assert "0.125" in path.read_text()


def test_a_table_by_itself_is_a_source(results):
    path = readme(results, BLOCK.replace("compare: main_table", "compare/tables/main.csv: table"))
    prose.refresh(path)
    assert TABLE in path.read_text()


def test_verdicts_are_held_against_those_of_another_study(tmp_path):
    names = ["measure", "nodes", "at", "variant", "difference", "verdict"]

    def leave(folder, rows):
        table = pd.DataFrame(rows, columns=names).assign(dataset="hpo", baseline="mcm")
        (tmp_path / folder).mkdir()
        table.to_csv(tmp_path / folder / "differences.csv", index=False)
        prose.write_values({"baseline": "mcm"}, tmp_path / folder)

    recall, ranked = ("macro_recall", "rare", "half"), ("macro_average_precision", "rare", "none")
    f1 = ("macro_f1", "with_positives", "half")
    there = [
        (*recall, "a", 0.1, "better"),
        (*ranked, "a", -0.2, "worse"),
        (*f1, "a", 0.2, "better"),
    ]
    here = [(*ranked, "a", 0.3, "better"), (*f1, "a", 0.1, "same"), (*recall, "a", 0.12, "better")]
    leave("there", there)
    leave("here", here)
    path = readme(tmp_path, "<!-- from here and there: repeated -->\n<!-- end -->")
    prose.refresh(path)
    lines = path.read_text().splitlines()
    assert lines[1] == (
        "Of 3 comparisons 3 are clear there. Of these 1 are clear in the same direction here, 1 in the "
        "other, and 1 are not clear; 0 are clear here alone."
    )
    assert "| clearly higher | 1 | 0 | 1 | 0 | 0 |" in lines
    assert "| clearly lower | 1 | 0 | 0 | 0 | 0 |" in lines
    assert lines[-2] == (
        "| hpo | `a` | `mcm` | macro F1 at 0.5 | +0.200, clearly higher | +0.100, practically the same |"
    )
    assert (
        "| hpo | `a` | +0.100, clearly higher | +0.120, clearly higher | −0.200, clearly lower | "
        "+0.300, clearly higher |"
    ) in lines


def test_published_figures_stand_beside_ours():
    rows = [("enron", "baseline", 0, 0.77), ("enron", "baseline_alone", 0, 0.75)]
    rows += [("enron", "baseline_alone", 1, 0.76), ("seq_FUN", "baseline", 0, 0.3)]
    table = pd.DataFrame(rows, columns=["dataset", "variant", "seed", "score"])
    table = table.assign(measure="micro_average_precision", nodes="all")
    lines = prose.render("published", {"table": table}).splitlines()
    assert lines[2:] == [
        "| enron | 0.755 ± 0.007 | 0.770 ± – | −0.001 | 0.756 | 0.724 | 0.710 | 0.681 |",
        "| seq_FUN | – | 0.300 ± – | – | 0.292 | 0.291 | 0.290 | 0.284 |",
    ]


def test_a_block_within_a_line_stays_there(results, monkeypatch):
    def render(name, values):
        return str(prose.pick(values["tables"]["main"], name, variant="weighted"))

    monkeypatch.setattr(prose, "render", render)
    path = readme(
        results, "It is <!-- from reports/compare: recall -->?<!-- end -->, twice as much.\n"
    )
    prose.refresh(path)
    assert "<!-- from reports/compare: recall -->0.5<!-- end -->, twice" in path.read_text()


def test_several_blocks_are_told_apart(results):
    both = f"{BLOCK.format(TABLE)}\nbetween\n{BLOCK.format('old')}"
    path = readme(results, both)
    assert prose.refresh(path) == ["main_table"]
    assert path.read_text() == f"{BLOCK.format(TABLE)}\nbetween\n{BLOCK.format(TABLE)}"


@pytest.mark.parametrize("example", [f"```\n{BLOCK}\n```", f"`{BLOCK.splitlines()[0]}`"])
def test_markers_in_code_are_examples(results, example):
    path = readme(results, example)
    assert prose.check(path) == []
    assert prose.refresh(path) == []


def test_code_within_a_block_is_kept_apart_from_its_end(results):
    path = readme(results, BLOCK.format("`code` and\n```\nmore\n```"))
    prose.refresh(path)
    assert path.read_text() == BLOCK.format(TABLE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n<!-- end -->", r"README.md:2: <!-- end --> where no block is open"),
        (f"{BLOCK.splitlines()[0]}\nx", r"README.md: block main_table does not end"),
        (f"{BLOCK.splitlines()[0]}\n{BLOCK}", r"README.md:2: .* where block main_table is open"),
        (BLOCK.replace("compare", "nothing"), r"README.md:3: nothing: no such results: run the"),
        (BLOCK.replace("main_table", "no_such"), r"README.md:3: prose: unknown template 'no_such'"),
        (
            BLOCK.replace("main_table", "table"),
            r"README.md:3: template table: 'table' is undefined",
        ),
    ],
)
def test_faults_name_the_line(results, text, message):
    path = readme(results, text)
    (fault,) = prose.check(path)
    with pytest.raises(SettingsError, match=message) as raised:
        prose.refresh(path)
    assert fault == str(raised.value)
    assert path.read_text() == text


def test_a_notebooks_prose_has_blocks_and_its_code_has_none(results):
    cells = [new_markdown_cell(BLOCK.format("old")), new_code_cell(f"# {BLOCK.splitlines()[0]}")]
    path = results / "page.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    assert prose.check(path) == ["page.ipynb: block main_table is stale: refresh it"]
    assert prose.refresh(path) == ["main_table"]
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source == BLOCK.format(TABLE)
    assert notebook.cells[1].source == f"# {BLOCK.splitlines()[0]}"
    assert prose.check(path) == []
