"""The web pages' sources hold every report, and nothing in them leads nowhere."""

import json
import re
from pathlib import Path, PurePosixPath

import pytest
from sitepages import interface, markdown, notebooks
from sitepages.assembly import FINDINGS, Site

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Site:
    site = Site(REPOSITORY, tmp_path_factory.mktemp("sources"))
    site.assemble()
    return site


def listed(page: Path) -> list[Path]:
    """Pages in the tables of contents of a page, without their suffix."""
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    entries = [line for tree in trees for line in tree.splitlines() if line and line[0] != ":"]
    return [(page.parent / re.sub(r".*<(.*)>", r"\1", entry)).resolve() for entry in entries]


def page_of(entry: Path) -> Path | None:
    files = (entry.with_name(entry.name + suffix) for suffix in (".md", ".ipynb"))
    return next((file for file in files if file.exists()), None)


def reached(site: Site) -> set[Path]:
    """Pages that the tables of contents lead to, from the start page on."""
    found: set[Path] = set()
    waiting = [site.output / "index.md"]
    while waiting:
        page = waiting.pop()
        found.add(page.resolve())
        if page.suffix == ".md":
            pages = [page_of(entry) for entry in listed(page)]
            assert None not in pages, page
            waiting += [other for other in pages if other not in found]
    return found


def test_every_executed_notebook_is_a_page_that_contents_lead_to(site):
    committed = [
        *REPOSITORY.glob("reports/**/*.ipynb"),
        *REPOSITORY.glob("studies/*/reports/**/*.ipynb"),
    ]
    names = [p.relative_to(REPOSITORY) for p in committed if not p.name.endswith(".failed.ipynb")]
    assert len(names) > 20
    assert {(site.output / name).resolve() for name in names} <= reached(site)


def test_trainings_are_listed_after_what_is_said_of_them_and_tables_last(site):
    text = (site.output / "reports" / "index.md").read_text()
    names = re.findall(r"^(\S.*) <", text, re.MULTILINE)
    kinds = [
        2 if name.endswith("tables") else 1 if name.startswith("train") else 0 for name in names
    ]
    assert kinds == sorted(kinds)
    place = names.index("evaluate · hpo")
    assert names[place + 1] == "evaluate · hpo · rare nodes"


def test_contents_lead_to_every_page_but_files_of_code(site):
    pages = {p.resolve() for p in site.output.rglob("*") if p.suffix in (".md", ".ipynb")}
    assert {p.relative_to(site.output).parts[0] for p in pages - reached(site)} == {"files"}


def test_every_table_of_a_report_is_listed(site):
    tables = [
        *REPOSITORY.glob("reports/**/tables/*.csv"),
        *REPOSITORY.glob("studies/*/reports/**/tables/*.csv"),
    ]
    for table in tables:
        page = site.output / table.parent.relative_to(REPOSITORY) / "index.md"
        assert f"[{table.name}]({table.name})" in page.read_text()
        assert (page.parent / table.name).read_bytes() == table.read_bytes()


def test_every_section_of_the_readme_is_shown(site):
    readme = (REPOSITORY / "README.md").read_text()
    for heading, body in markdown.sections(readme):
        on_start_page = heading in ("", FINDINGS)
        page = site.output / ("index.md" if on_start_page else f"{markdown.slug(heading)}.md")
        last = body.strip().splitlines()[-1]
        assert heading in page.read_text()
        assert "](" in last or last in page.read_text()


def test_findings_are_those_of_the_readme(site):
    block = re.search(
        r"<!-- from \S+: variants_opening -->\n(.*?)<!-- end -->",
        (REPOSITORY / "README.md").read_text(),
        re.DOTALL,
    )
    assert block[1] in (site.output / "index.md").read_text()


def test_links_lead_to_pages_or_files(site):
    for page in site.output.rglob("*.md"):
        for target in markdown.links(page.read_text()):
            assert (page.parent / target.partition("#")[0]).is_file(), f"{page.name}: {target}"


def test_every_link_of_the_repository_leads_somewhere(site):
    assert site.dead == []


def test_no_source_names_a_folder_of_a_machine(site):
    for path in site.output.rglob("*"):
        if path.suffix in (".md", ".ipynb", ".csv"):
            text = path.read_text()
            assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/\w", text), path
            assert str(REPOSITORY) not in text


def test_outputs_are_kept_and_code_is_folded(site):
    place = Path("reports/compare/04_compare.ipynb")
    before = json.loads((REPOSITORY / place).read_text())["cells"]
    after = json.loads((site.output / place).read_text())["cells"]
    assert [c.get("outputs") for c in before] == [c.get("outputs") for c in after]
    code = [c for c in after if c["cell_type"] == "code"]
    assert all(notebooks.FOLDED in c["metadata"]["tags"] for c in code)


def test_all_public_names_and_modules_are_described(site):
    import rarenodes

    library = REPOSITORY / "src" / "rarenodes"
    assert set(interface.public_names(library)) == set(rarenodes.__all__)
    packages = {path.parent.name for path in library.glob("*/__init__.py")}
    assert packages == set(interface.PACKAGES)
    overview = (site.output / "api" / "index.md").read_text()
    for name in rarenodes.__all__:
        thing = getattr(rarenodes, name)
        assert f"~{thing.__module__}.{name}" in overview


# --- the parts ------------------------------------------------------------------------------------


def test_sections_do_not_start_in_code():
    text = "# T\nhead\n## A b\n```\n## no\n```\n### c\n## D\nend\n"
    found = dict(markdown.sections(text))
    assert list(found) == ["", "A b", "D"]
    assert markdown.raised(found["A b"]) == "```\n## no\n```\n## c\n"
    assert markdown.slug("How to add …") == "how-to-add"


def test_links_are_renewed_outside_of_code_alone():
    text = (
        "[a](x.md) `[b](y.md)` [`c`](z.py), ![d](e.png) [f](https://g) [h](#i)\n```\n[j](k)\n```\n"
    )
    seen = []

    def renew(target):
        seen.append(target)
        return None if target == "z.py" else f"new/{target}"

    assert markdown.relinked(text, renew) == (
        "[a](new/x.md) `[b](y.md)` `c`, ![d](new/e.png) [f](https://g) [h](#i)\n```\n[j](k)\n```\n"
    )
    assert seen == ["x.md", "z.py", "e.png"]


def test_reports_are_told_apart_by_stage_data_set_and_variant():
    label = notebooks.label
    assert label(PurePosixPath("reports/train/icd10cm/mcm.ipynb")) == "train · icd10cm · mcm"
    assert label(PurePosixPath("studies/audit/reports/audit/05_audit.ipynb")) == "audit"


def test_a_notebook_that_was_not_executed_is_refused():
    cells = [
        {"cell_type": "markdown", "source": ["# T"], "metadata": {}},
        {
            "cell_type": "code",
            "source": ["1"],
            "metadata": {},
            "execution_count": None,
            "outputs": [],
        },
    ]
    path = PurePosixPath("reports/a/01_a.ipynb")
    with pytest.raises(ValueError, match=r"reports/a/01_a\.ipynb: a code cell was not executed"):
        notebooks.page(json.dumps({"cells": cells}), path, lambda target: target)
    with pytest.raises(ValueError, match="expected a heading"):
        notebooks.page(json.dumps({"cells": cells[1:]}), path, lambda target: target)


def test_a_link_to_a_missing_file_is_told_and_its_words_stay(tmp_path):
    repository = tmp_path / "repository"
    (repository / "reports").mkdir(parents=True)
    (repository / "data").mkdir()
    (repository / "site").mkdir()
    library = repository / "src" / "rarenodes"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("")
    (repository / "README.md").write_text("# N\n## What came out\n[gone](reports/gone.ipynb)\n")
    for name in ("CLAIMS.md", "data/README.md", "REPRODUCIBILITY.md", "site/examples.md"):
        (repository / name).write_text("# T\n")
    site = Site(repository, tmp_path / "sources")
    site.assemble()
    assert site.dead == [(PurePosixPath("index.md"), "reports/gone.ipynb")]
    assert "\ngone\n" in (tmp_path / "sources" / "index.md").read_text()


def test_links_to_the_readme_lead_to_the_page_of_the_section(tmp_path):
    site = Site(REPOSITORY, tmp_path)
    renew = site._renewer(PurePosixPath("data/README.md"))
    assert renew("../README.md") == "../index.md"
    assert renew("../README.md#try-something") == "../try-something.md"
    assert renew("../reports/compare/tables/main.md") == "../reports/compare/tables/index.md"
    assert renew("../reports/train/icd10cm_limited") == "../reports/index.md"
    assert renew("../notebooks/02_train.ipynb") == "../reports/index.md"
    assert site.dead == []


def test_a_folder_of_examples_is_a_page_of_its_files(tmp_path):
    site = Site(REPOSITORY, tmp_path)
    renew = site._renewer(PurePosixPath("data/README.md"))
    assert renew("examples") == "../files/data/examples.md"
    page = tmp_path / "files" / "data" / "examples.md"
    text = page.read_text()
    for path in (REPOSITORY / "data" / "examples").glob("*.*"):
        assert f"[{path.name}](../../data/examples/{path.name})" in text
        assert (tmp_path / "data" / "examples" / path.name).read_bytes() == path.read_bytes()
    assert (REPOSITORY / "data" / "examples" / "animals_edges.csv").read_text() in text
    assert site.dead == []


def test_a_readme_without_findings_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("# N\n")
    with pytest.raises(ValueError, match=r"README\.md: expected a section '## What came out'"):
        Site(tmp_path, tmp_path / "sources").assemble()
