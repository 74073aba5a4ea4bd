"""The project's files agree with each other."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from rattler import MatchSpec

REPOSITORY = Path(__file__).parents[1]
# conda's name → PyPI's.
ON_PYPI = {"pytorch": "torch"}


def locked() -> dict[str, str]:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normal(name): version for name, version in pins}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_lock_pins_everything_the_package_needs():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    needed = [line for group in groups for line in group]
    names = {normal(re.match(r"[\w.-]+", line)[0]) for line in needed}
    assert names <= set(locked())


def test_no_pin_has_a_local_version():
    assert not [name for name, version in locked().items() if "+" in version]


def test_conda_environment_agrees_with_the_lock():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    for entry in environment["dependencies"]:
        if isinstance(entry, dict):
            pinned = [line.split("==") for line in entry["pip"] if "==" in line]
            assert all(locked()[normal(name)] == version for name, version in pinned)
            continue
        spec = MatchSpec(entry, strict=True)
        name = str(spec.name.normalized if hasattr(spec.name, "normalized") else spec.name)
        if name in ("python", "pip"):
            continue
        assert str(spec.version).removesuffix(".*") == locked()[ON_PYPI.get(name, name)], entry


def test_conda_environment_has_everything_the_package_needs():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    listed = {
        normal(re.match(r"[\w.-]+", line)[0])
        for entry in environment["dependencies"]
        for line in (entry["pip"] if isinstance(entry, dict) else [entry])
        if re.match(r"\w", line)
    }
    listed |= {pypi for conda, pypi in ON_PYPI.items() if conda in listed}
    assert {normal(re.match(r"[\w.-]+", line)[0]) for line in project["dependencies"]} <= listed


def module_file(module: str) -> Path | None:
    path = REPOSITORY / "src" / module.replace(".", "/")
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((c for c in candidates if c.exists()), None)


def imported(source: str) -> set[Path]:
    """Files of the library that a source imports, and what these import."""
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop())):
            if not isinstance(node, ast.ImportFrom) or not node.module.startswith("rarenodes"):
                continue
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            new = {module_file(module) for module in modules} - found - {None}
            found |= new
            waiting += [path.read_text() for path in new]
    return found


# What a stage imports without its numbers depending on it.
_ABOUT_TRAINING = {
    "element_losses", "ensemble", "forest", "kernels", "losses", "resampling", "schedules",
    "training", "uncertainty", "variants", "weighting",
}  # fmt: skip
NO_DEPENDENCE = {
    "prepare": {*_ABOUT_TRAINING, "scoring"},
    "train": {"plots", "tables", "datasets"},
    "evaluate": {*_ABOUT_TRAINING, "datasets"},
    "compare": {
        *_ABOUT_TRAINING, "datasets", "bootstrap", "hierarchy", "metrics", "results", "scoring",
        "stored_scores",
    },
    "gallery": {
        "datasets", "ensemble", "forest", "metrics", "randomness", "resampling", "scoring",
        "stored_scores", "training",
    },
    "audit": _ABOUT_TRAINING,
    "scale": {*_ABOUT_TRAINING, "datasets", "scoring"},
}  # fmt: skip
STAGES = [
    *((".", stage) for stage in ("prepare", "train", "evaluate", "compare", "gallery")),
    *(("studies/audit", stage) for stage in ("prepare", "train", "audit")),
    *(("studies/scale", stage) for stage in ("prepare", "train", "scale")),
]


@pytest.mark.parametrize(("folder", "stage"), STAGES)
def test_stages_list_what_they_depend_on(folder, stage):
    pipeline = yaml.safe_load((REPOSITORY / folder / "dvc.yaml").read_text())
    listed = [entry.removeprefix("../../") for entry in pipeline["stages"][stage]["deps"]]
    (notebook,) = (REPOSITORY / "notebooks").glob(f"*_{stage}.ipynb")
    cells = json.loads(notebook.read_text())["cells"]
    source = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    for path in imported(source):
        name = path.relative_to(REPOSITORY).as_posix()
        if path.name == "__init__.py" and path.parent.name in ("rarenodes", "plots"):
            continue  # they hold no numbers
        covered = any(name == entry or name.startswith(f"{entry}/") for entry in listed)
        room = path.relative_to(REPOSITORY / "src" / "rarenodes").parts[0].removesuffix(".py")
        assert covered or room in NO_DEPENDENCE[stage], name


@pytest.mark.parametrize("path", sorted((REPOSITORY / "notebooks").glob("*.ipynb")), ids=str)
def test_notebooks_hold_no_outputs_and_no_functions(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    assert not any(re.search(r"^\s*(def|class) ", "".join(c["source"]), re.M) for c in code)


def test_committed_lock_matches_the_code():
    """`dvc repro` on an unchanged clone has nothing to do; after an edit, run it first."""
    if not (REPOSITORY / "dvc.lock").exists():
        pytest.skip("no results are committed yet")
    done = subprocess.run(
        ["dvc", "repro", "--allow-missing", "--dry"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stdout.splitlines() if line.startswith("Running stage")]


def test_readme_shows_the_main_table_as_it_is():
    table = REPOSITORY / "reports" / "compare" / "tables" / "main.md"
    if not table.exists():
        pytest.skip("no results are committed yet")
    assert table.read_text().strip() in (REPOSITORY / "README.md").read_text()
