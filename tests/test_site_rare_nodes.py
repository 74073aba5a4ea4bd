"""The pages of rare nodes: every row is there, whatever it holds, and can be searched and sorted."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from sitepages import rare_nodes
from sitepages.assembly import Site

REPOSITORY = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium")

ROW = {
    "variant": "mcm",
    "at": "tuned",
    "node": "A00",
    "name": "Cholera",
    "training_examples": 3,
    "test_examples": 2,
    "hits": 1.6666667,
    "misses": 0.3333333,
    "false_alarms": 0,
    "taken_for": "nothing",
    "taken_for_share": 1,
    "found": "el tor & others",
    "missed": "a <b> and `c`\n\n````\nmore",
}
OTHER = {**ROW, "name": "Typhoid", "hits": 10.0, "found": "fever", "missed": None}


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "repository" / "reports" / "evaluate" / "toy" / "tables" / rare_nodes.FILE
    path.parent.mkdir(parents=True)
    pd.DataFrame([ROW, OTHER]).to_csv(path, index=False)
    return path


def test_rows_are_shown_as_they_are(table):
    text = rare_nodes.page(table, "evaluate · toy")
    assert text.startswith("# Which rare nodes were found? (evaluate · toy)\n")
    rows = re.findall(r"<tr>(.*)</tr>", text)
    assert len(rows) == 3
    cells = re.findall(r"<td[^>]*>(.*?)</td>", rows[1])
    assert cells == [
        "Cholera", "1.67", "0.33", "mcm", "3", "2", "0", "nothing", "1",
        '<div class="clamped" tabindex="0">el tor &amp; others</div>',
        '<div class="clamped" tabindex="0">a &lt;b&gt; and &#96;c&#96; &#96;&#96;&#96;&#96; more</div>',
    ]  # fmt: skip
    assert len(re.findall("<th>", rows[0])) == len(cells)
    assert re.findall(r"<td[^>]*>(.*?)</td>", rows[2])[1:3] == ["10", "0.33"]
    # Nothing in a row ends the block that it stands in.
    assert text.count("````") == 2


def test_a_table_of_another_version_is_refused(table):
    pd.DataFrame([ROW]).drop(columns="missed").to_csv(table, index=False)
    with pytest.raises(ValueError, match=r"rare_nodes\.csv: no column 'missed': run the stage"):
        rare_nodes.page(table, "toy")


def test_the_contents_lead_to_the_page(table, tmp_path):
    repository = tmp_path / "repository"
    for name in ("CLAIMS.md", "data/README.md", "REPRODUCIBILITY.md", "site/examples.md"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("# T\n")
    own = table.relative_to(repository)
    (repository / "README.md").write_text(f"# N\n## What came out\n[of toy]({own})\n")
    library = repository / "src" / "rarenodes" / "__init__.py"
    library.parent.mkdir(parents=True)
    library.write_text("")
    site = Site(repository, tmp_path / "sources")
    site.assemble()
    assert site.dead == []
    page = tmp_path / "sources" / "reports" / "evaluate" / "toy" / "rare_nodes.md"
    assert "Typhoid" in page.read_text()
    contents = (tmp_path / "sources" / "reports" / "index.md").read_text()
    assert "evaluate · toy · rare nodes <evaluate/toy/rare_nodes>" in contents
    assert (page.parent / "tables" / rare_nodes.FILE).exists()
    # A link to the table leads to the page, and from there to the file.
    start = (tmp_path / "sources" / "index.md").read_text()
    assert "[of toy](reports/evaluate/toy/rare_nodes.md)" in start
    assert "(tables/rare_nodes.csv)" in page.read_text()
    listed = (page.parent / "tables" / "index.md").read_text()
    assert "[rare_nodes.csv](rare_nodes.csv)" in listed


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_reader_searches_and_sorts(table, tmp_path):
    static = (REPOSITORY / "site" / "static").as_uri()
    block = rare_nodes.page(table, "toy").split("````")[1].removeprefix("{raw} html")
    scripts = "".join(f'<script src="{static}/{name}.js"></script>' for name in ("sort", "search"))
    acts = """<script>document.addEventListener("DOMContentLoaded", () => {
      const field = document.querySelector("input.table-search");
      const see = () => [...document.querySelectorAll("tbody tr")].filter((row) => !row.hidden)
        .map((row) => row.cells[0].textContent).join();
      const seen = [see()];
      for (const text of ["FEVER mcm", "fever el", ""]) {
        field.value = text;
        field.dispatchEvent(new Event("input"));
        seen.push(see() + document.querySelector(".table-count").textContent);
      }
      for (const click of [1, 2]) {
        document.querySelectorAll("th")[1].click();
        seen.push(see());
      }
      document.title = seen.join("|");
    });</script>"""
    html = tmp_path / "page.html"
    html.write_text(
        f'<!doctype html><meta charset="utf-8"><article>{block}</article>{scripts}{acts}'
    )
    switches = ["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    found = subprocess.run(
        [CHROMIUM, *switches, profile, html.as_uri()], capture_output=True, text=True, check=True
    ).stdout
    title = re.search(r"<title>(.*?)</title>", found)[1]
    assert title.split("|") == [
        "Cholera,Typhoid",
        "Typhoid 1 of 2 rows",
        " 0 of 2 rows",
        "Cholera,Typhoid 2 of 2 rows",
        "Cholera,Typhoid",
        "Typhoid,Cholera",
    ]
