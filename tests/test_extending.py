"""README's "How to add …": each row tried in a copy of the library, in as many files as it says.

What was added is used in one process for several rows: its imports take longer than it.
"""

import filecmp
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]

LOSS = '''
def squared(logits: Logits, targets: Targets) -> Logits:
    """The squared error of the probability."""
    check_zero_one(targets)
    return (torch.sigmoid(logits) - targets) ** 2


ELEMENT_LOSSES'''
WEIGHTING = """
def _root(counts: Tensor, num_examples: int, *, power: float = 0.5) -> Tensor:
    return (num_examples / counts.clamp(min=1)) ** power


register_weighting("root", _root)
"""
UNCERTAINTY = """
@register
def spread(probabilities: Probabilities) -> Uncertainty:
    return probabilities.amax(dim=0) - probabilities.amin(dim=0)
"""
SOURCE = '''"""Rings: an example lies in a ring, and in a half of it."""

import numpy as np
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.sampling import Sampling, SplitOptions
from rarenodes.loss.hierarchy import Hierarchy


def load(source, root, options: SplitOptions, sampling: Sampling) -> Dataset:
    hierarchy = Hierarchy([("inner", "all"), ("outer", "all"), ("left", "inner")])
    points = sampling.stream("points").normal(size=(200, 2)).astype(np.float32)
    inner = np.linalg.norm(points, axis=1) < 1
    columns = {"all": np.ones(200), "inner": inner, "outer": ~inner, "left": inner & (points[:, 0] < 0)}
    return Dataset(
        name=source,
        features=points,
        targets=sparse.csr_array(np.stack([columns[n] for n in hierarchy.nodes], 1).astype(np.uint8)),
        hierarchy=hierarchy,
        split=sampling.split(200, options),
        evaluated=np.array([node != "all" for node in hierarchy.nodes]),
        card={"source": "made", "licence": "none needed"},
    )
'''
STAGE = '''"""The stage `count`: how many examples a data set has."""

from pathlib import Path

from rarenodes.datasets.dataset import Dataset
from rarenodes.folders import write_whole
from rarenodes.study.params import Study


def count(study: Study, name: str, folder: Path) -> int:
    """Count the examples; a text goes to `folder`."""
    found = len(Dataset.load(study.prepared(name)).features)
    write_whole(folder / "count.txt", f"{found}\\n")
    return found
'''
STAGE_ENTRY = """
    "count": Stage(
        notebook="10_count.ipynb",
        about="count the examples of a data set",
        items=("dataset",),
        folders={"folder": "reports/count/{dataset}"},
        run=_lazily("stages.count", "count"),
        inputs=(_PREPARED,),
        params=("datasets.{dataset}",),
        library=(_DATASET, "loss/hierarchy.py", "stages/count.py"),
        outputs={"reports/count/{dataset}": "git"},
    ),
}  # fmt: skip"""
LIBRARY = "src/rarenodes"


@pytest.fixture
def copy(tmp_path) -> Path:
    """The library, its notebooks and a study of one data set."""
    for name in ("src", "notebooks"):
        # Compiled code too, which is that of the files that stay as they are.
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    values = yaml.safe_load((REPOSITORY / "tests" / "tiny" / "params.yaml").read_text())
    values["datasets"].pop("toy_limited")
    values["catalogue"] = ["variants.yaml"]
    values["variants"] = ["mcm"]
    values["evaluation"].pop("contrasts")
    save(tmp_path / "params.yaml", values)
    save(tmp_path / "variants.yaml", {"variants": {"mcm": {"about": "the baseline"}}})
    return tmp_path


def save(path: Path, values: dict) -> None:
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name}: {old!r}"
    path.write_text(text.replace(old, new))


def add_variant(copy: Path, **settings: object) -> None:
    values = yaml.safe_load((copy / "variants.yaml").read_text())
    values["variants"]["added"] = {"about": "added here", **settings}
    save(copy / "variants.yaml", values)
    study = yaml.safe_load((copy / "params.yaml").read_text())
    study["variants"] = ["mcm", "added"]
    save(copy / "params.yaml", study)


def run(copy: Path, *commands: tuple[str, ...]) -> None:
    """Commands of the copy's library, one after the other in a process of its own."""
    code = (
        f"import sys\nfrom rarenodes.__main__ import main\nsys.exit(any(map(main, {commands!r})))"
    )
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "NUMBA_DISABLE_JIT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=copy, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def changed(copy: Path) -> set[str]:
    """Files of the library and notebooks that are new or not what they are in the repository."""
    files = [path for name in ("src", "notebooks") for path in (copy / name).rglob("*.*")]
    named = {str(path.relative_to(copy)): path for path in files if path.is_file()}
    return {
        name
        for name, path in named.items()
        if path.suffix in {".py", ".ipynb"}
        and not (
            (REPOSITORY / name).exists() and filecmp.cmp(path, REPOSITORY / name, shallow=False)
        )
    }


def files_that_readme_says(what: str) -> int:
    row = re.search(
        rf"^\| {re.escape(what)} \|.*\| (\d+).*\|$", (REPOSITORY / "README.md").read_text(), re.M
    )
    return int(row[1])


def test_all_that_a_variant_names_takes_one_file_each_and_a_source_two(copy):
    loss = copy / LIBRARY / "loss"
    replace(loss / "elements.py", "\nELEMENT_LOSSES", LOSS)
    replace(loss / "elements.py", "asymmetric, negative_tolerant)", "asymmetric, squared)")
    with (loss / "weighting.py").open("a") as file:
        file.write(WEIGHTING)
    with (loss / "uncertainty.py").open("a") as file:
        file.write(UNCERTAINTY)
    add_variant(
        copy,
        loss={"name": "squared"},
        weights={"mode": "root", "power": 0.3},
        focal={"uncertainty": "spread"},
    )
    expected = ("a loss of single elements", "a node weighting", "an uncertainty")
    assert len(changed(copy)) == sum(map(files_that_readme_says, expected)) == 3
    # The variant that uses them took an entry in the file of variants, and no code.
    assert files_that_readme_says("a variant") == 1

    before = changed(copy)
    datasets = copy / LIBRARY / "datasets"
    (datasets / "rings.py").write_text(SOURCE)
    replace(
        datasets / "__init__.py", "import (\n    attack,\n", "import (\n    rings,\n    attack,\n"
    )
    replace(
        datasets / "__init__.py",
        "_SOURCES = {\n",
        '_SOURCES = {\n    "rings": _Source(rings.load, rings.SplitOptions),\n',
    )
    values = yaml.safe_load((copy / "params.yaml").read_text())
    values["datasets"] = {"rings": {"about": "rings", "source": "rings"}}
    save(copy / "params.yaml", values)
    assert len(changed(copy) - before) == files_that_readme_says("a source of data") == 2

    run(copy, ("run", "--variants", "added", "--table", "scores"))
    scores = pd.read_csv(copy / "scores.csv")
    assert scores[["dataset", "variant"]].values.tolist() == [["rings", "added"]]


def test_a_stage_takes_four_files(copy):
    (copy / LIBRARY / "stages" / "count.py").write_text(STAGE)
    replace(copy / LIBRARY / "stages" / "table.py", "\n}  # fmt: skip", STAGE_ENTRY)
    parameters = nbformat.v4.new_code_cell('dataset = "toy"\nfolder = "."')
    parameters.metadata["tags"] = ["parameters"]
    cells = [
        parameters,
        nbformat.v4.new_code_cell(
            "from pathlib import Path\n\nfrom rarenodes.stages.count import count\n"
            "from rarenodes.study.params import Study\n\n"
            'count(Study("params.yaml"), dataset, Path(folder))'
        ),
    ]
    notebook = nbformat.v4.new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
    nbformat.write(notebook, copy / "notebooks" / "10_count.ipynb")
    values = yaml.safe_load((copy / "params.yaml").read_text())
    values["stages"] = ["prepare", "count"]
    save(copy / "params.yaml", values)
    run(copy, ("pipeline",), ("prepare", "toy"), ("notebook", "count", "toy"))
    stages = yaml.safe_load((copy / "dvc.yaml").read_text())["stages"]
    assert set(stages) == {"prepare", "count"}
    assert (copy / "reports/count/toy/count.txt").read_text() == "300\n"
    assert (copy / "reports/count/toy/10_count.ipynb").exists()
    assert len(changed(copy)) + 1 == files_that_readme_says("a stage") == 4
