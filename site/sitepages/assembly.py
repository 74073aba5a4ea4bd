"""The whole tree of sources, written into one folder that Sphinx then reads."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from sitepages import interface, notebooks, rare_nodes
from sitepages.markdown import data_rows, fenced, raised, relinked, sections, slug

# Longer tables can be had as files.
MAX_ROWS = 120
# The README's section on the start page, below what stands before all sections.
FINDINGS = "What came out"
CHECKLIST = "REPRODUCIBILITY.md"
CLAIMS = "CLAIMS.md"
# Files that are shown as pages of code; others that are linked to can be had as they are.
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json"}
# Folders that are shown as a page of their files, and of these, those that can be read.
SHOWN_FOLDERS = (PurePosixPath("data/examples"),)
READ_AS_TEXT = {*LANGUAGES, ".arff", ".csv", ".obo", ".txt"}

Entry = tuple[str, PurePosixPath]


class Site:
    """Pages that are being put together.

    Attributes:
        repository: the folder that they are made from.
        output: the folder that they are written into.
        dead: links to files that are not there, as (page, target); their words stay.

    """

    def __init__(self, repository: Path, output: Path) -> None:
        self.repository = repository
        self.output = output
        self.dead: list[tuple[PurePosixPath, str]] = []
        # Folders that links may name, and the pages that stand for them.
        self._homes = {
            PurePosixPath("reports"): PurePosixPath("reports/index.md"),
            PurePosixPath("notebooks"): PurePosixPath("reports/index.md"),
            PurePosixPath("src/rarenodes"): PurePosixPath("api/index.md"),
        }
        for study in self._found(".", "studies/*/README.md"):
            self._homes[study.parent] = study
        for table in [
            *self._found("reports", "**/tables/*.csv"),
            *self._found("studies", "*/reports/**/tables/*.csv"),
        ]:
            self._homes[table.parent] = table.parent / "index.md"
        # Tables that have a page to search in, on which, and beside which, links lead to the file.
        self._searched = {
            table: table.parent.with_name("rare_nodes.md")
            for folder in self._homes
            for table in self._found(folder, rare_nodes.FILE)
        }

    def assemble(self) -> None:
        """Write every page, and copy what pages show and link to.

        Raises:
            ValueError: a notebook that is no finished report, or a README without findings.

        """
        self._start(self._guide())
        self._study(
            PurePosixPath("reports"), "# The default study\n\nWhat each stage left, to be read.\n"
        )
        for readme in self._found(".", "studies/*/README.md"):
            self._study(readme.parent / "reports", self._read(readme))
        self._library()
        for path in (CLAIMS, "data/README.md", CHECKLIST):
            self._write(PurePosixPath(path), self._read(PurePosixPath(path)))

    def notebooks(self, reports: PurePosixPath) -> list[PurePosixPath]:
        """The executed notebooks of a folder; what an interrupted stage left is none."""
        found = self._found(reports, "**/*.ipynb")
        return [
            p
            for p in found
            if not p.stem.endswith(".failed") and p.parts.count(".ipynb_checkpoints") == 0
        ]

    # --- kinds of pages ---------------------------------------------------------------------------

    def _sections(self) -> list[tuple[str, str]]:
        return list(sections(self._read(PurePosixPath("README.md"))))

    def _guide(self) -> list[str]:
        """A page for each section of the README but the findings; returns their names."""
        names = []
        for heading, body in self._sections():
            if heading not in ("", FINDINGS):
                names.append(slug(heading))
                self._write(PurePosixPath(f"{names[-1]}.md"), f"# {heading}\n{raised(body)}")
        return names

    def _start(self, guide: Iterable[str]) -> None:
        parts = dict(self._sections())
        if FINDINGS not in parts:
            raise ValueError(f"README.md: expected a section '## {FINDINGS}' for the start page")
        homes = ["reports/index", *self._found(".", "studies/*/README.md")]
        trees = [
            toctree("How to", guide),
            toctree("Results", [str(home).removesuffix(".md") for home in homes]),
            toctree(
                "Data and method",
                [CLAIMS.removesuffix(".md"), "data/README", CHECKLIST.removesuffix(".md")],
            ),
            toctree("Library", ["api/index", "api/examples"]),
        ]
        text = f"{parts['']}\n## {FINDINGS}\n{parts[FINDINGS]}"
        self._write(PurePosixPath("index.md"), "\n".join([text, *trees]))

    def _study(self, reports: PurePosixPath, text: str) -> None:
        """A study's page, and those of its notebooks, texts and tables."""
        home = self._home(reports)
        entries: list[Entry] = []
        for path in self.notebooks(reports):
            self._save(path, notebooks.page(self._read(path), path, self._renewer(path)))
            entries.append((notebooks.label(path), path))
        for path in self._found(reports, "**/*.md"):
            if path.parent not in self._homes or path.parent == reports:
                entries.append((self._text(path), path))
        for table, page in self._searched.items():
            if reports not in table.parents:
                continue
            about = notebooks.label(table.parent.parent)
            self._write(page, rare_nodes.page(self.repository / table, about))
            entries.append((f"{about} · rare nodes", page))
        for folder, page in self._homes.items():
            if reports in folder.parents:
                self._tables(folder)
                entries.append((notebooks.label(folder), page))
        entries.sort(key=_importance)
        items = [
            f"{name} <{path.relative_to(home.parent).with_suffix('')}>" for name, path in entries
        ]
        self._write(home, f"{text}\n{toctree('', items, hidden=False)}" if items else text)

    def _text(self, path: PurePosixPath) -> str:
        """The page of a Markdown file among the reports; returns its title."""
        text = self._read(path)
        if not text.startswith("# "):
            text = f"# {notebooks.label(path)}\n\n{text}"
        self._write(path, text)
        return text.partition("\n")[0].removeprefix("# ")

    def _tables(self, folder: PurePosixPath) -> None:
        """A page with the tables of a folder; long ones can be had as files."""
        parts = [f"# Tables ({notebooks.label(folder.parent)})"]
        for table in self._found(folder, "*.csv"):
            parts += [f"## {table.stem}", f"[{table.name}]({table.name})"]
            shown = table.with_suffix(".md")
            short = data_rows(self.repository / table, MAX_ROWS) <= MAX_ROWS
            if short and (self.repository / shown).exists():
                parts.append(self._read(shown))
            else:
                parts.append("Its rows are in the file alone.")
        self._write(folder / "index.md", "\n\n".join(parts) + "\n")

    def _library(self) -> None:
        library = self.repository / "src" / "rarenodes"
        self._save(PurePosixPath("api/index.md"), interface.overview(library, "examples.md"))
        for package in interface.PACKAGES:
            text = interface.package_page(library, package)
            self._save(PurePosixPath(f"api/{package}.md"), text)
        self._save(PurePosixPath("api/examples.md"), self._read(PurePosixPath("site/examples.md")))

    # --- files ------------------------------------------------------------------------------------

    def _found(self, folder: PurePosixPath | str, pattern: str) -> list[PurePosixPath]:
        paths = (self.repository / folder).glob(pattern)
        return sorted(PurePosixPath(path.relative_to(self.repository)) for path in paths)

    def _read(self, path: PurePosixPath) -> str:
        return (self.repository / path).read_text(encoding="utf-8")

    def _write(self, path: PurePosixPath, text: str) -> None:
        self._save(path, relinked(text, self._renewer(path)))

    def _save(self, path: PurePosixPath, text: str) -> None:
        target = self.output / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    # --- links ------------------------------------------------------------------------------------

    def _renewer(self, page: PurePosixPath):
        """What becomes of the targets of a page's links, see `sitepages.markdown.relinked`."""

        def renew(target: str) -> str | None:
            file, hash_, place = target.partition("#")
            found = PurePosixPath(os.path.normpath(page.parent / file))
            if str(found) == "README.md":
                found, place = self._section(place), ""
            searched = self._searched.get(found)
            if searched and page not in (searched, self._home(found.parent)):
                reached = searched
            else:
                reached = self._reached(found)
            if reached is None:
                self.dead.append((page, target))
                return None
            return os.path.relpath(reached, page.parent) + (hash_ + place if place else "")

        return renew

    def _reached(self, path: PurePosixPath) -> PurePosixPath | None:
        """The page or the copied file that stands for a file or folder of the repository."""
        here = self.repository / path
        if path in SHOWN_FOLDERS and here.is_dir():
            return self._folder(path)
        if here.is_dir():
            return self._home(path)
        if self._is_page(path):
            return path
        if not here.exists():
            return None
        if path.suffix in (".ipynb", ".md"):
            return self._home(path.parent)
        if path.suffix in LANGUAGES:
            return self._source(path)
        target = self.output / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(here, target)
        return path

    def _section(self, place: str) -> PurePosixPath:
        """The page of a place in the README."""
        headings = (heading for heading, _ in self._sections() if heading not in ("", FINDINGS))
        pages = {slug(heading): PurePosixPath(f"{slug(heading)}.md") for heading in headings}
        return pages.get(place.strip("-"), PurePosixPath("index.md"))

    def _is_page(self, path: PurePosixPath) -> bool:
        """Whether a file is shown at its own place; for a section's page, whether there is one."""
        if path in self._homes.values() or str(path) in (
            "index.md",
            "data/README.md",
            CLAIMS,
            CHECKLIST,
        ):
            return True
        if path.parent == PurePosixPath(".") and path.suffix == ".md":
            return self._section(path.stem) == path
        report = "reports" in path.parts and path.suffix in (".ipynb", ".md")
        return report and path.parent.name != "tables" and (self.repository / path).exists()

    def _home(self, folder: PurePosixPath) -> PurePosixPath | None:
        """The page that stands for a folder: its own, or that of the next one around it."""
        around = (self._homes[p] for p in (folder, *folder.parents) if p in self._homes)
        return next(around, None)

    def _folder(self, folder: PurePosixPath) -> PurePosixPath:
        """A page that shows the files of a folder, and from which they can be had."""
        page = PurePosixPath("files", f"{folder}.md")
        parts = ["---\norphan: true\n---", f"# {folder}"]
        for path in self._found(folder, "*.*"):
            target = self.output / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.repository / path, target)
            parts += [f"## {path.name}", f"[{path.name}]({os.path.relpath(path, page.parent)})"]
            if path.suffix in READ_AS_TEXT:
                parts.append(fenced(self._read(path), LANGUAGES.get(path.suffix, "text")))
        self._save(page, "\n\n".join(parts) + "\n")
        return page

    def _source(self, path: PurePosixPath) -> PurePosixPath:
        """A page that shows a file of code or settings."""
        page = PurePosixPath("files", f"{path}.md")
        code = fenced(self._read(path), LANGUAGES[path.suffix])
        self._save(page, f"---\norphan: true\n---\n\n# {path}\n\n{code}")
        return page


def _importance(entry: Entry) -> tuple[bool, bool, str]:
    """Trainings, of which there are many, come after what says something of them, tables last."""
    name = entry[0]
    return name.endswith(notebooks.SEPARATOR + "tables"), name.startswith("train"), name.casefold()


def toctree(caption: str, entries: Iterable[str], *, hidden: bool = True) -> str:
    """MyST's list of the pages below a page."""
    options = [":maxdepth: 1"]
    if caption:
        options.append(f":caption: {caption}")
    if hidden:
        options.append(":hidden:")
    return "\n".join(["```{toctree}", *options, "", *entries, "```", ""])
