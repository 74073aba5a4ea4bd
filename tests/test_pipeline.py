"""The pipeline as a user runs it, at tiny size, in a copy of this repository."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
TINY = Path(__file__).parent / "tiny" / "params.yaml"

pytestmark = pytest.mark.slow


class Clone:
    """A copy of the repository with a study of one data set and two variants."""

    def __init__(self, folder: Path):
        self.folder = folder
        listed = self._git_files()
        for name in listed:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target)
        # The default study's results are none of this one's.
        shutil.rmtree(folder / "reports", ignore_errors=True)
        (folder / "dvc.lock").unlink(missing_ok=True)
        values = yaml.safe_load(TINY.read_text())
        del values["datasets"]["toy_limited"], values["variants"]["released_focal_gmu"]
        values["evaluation"]["contrasts"] = {}
        self.write_params(values)
        self.run(sys.executable, "-m", "rarenodes", "pipeline")
        self.run("git", "init", "--quiet")
        self.run("git", "add", "--all")
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        self.run("git", *identity, "commit", "--quiet", "--message", "start")

    @staticmethod
    def _git_files() -> list[str]:
        listing = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            text=True,
        )
        return [name for name in listing.stdout.splitlines() if (REPOSITORY / name).is_file()]

    def write_params(self, values: dict) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))

    def params(self) -> dict:
        return yaml.safe_load((self.folder / "params.yaml").read_text())

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )
        return done

    def bytes_of_results(self) -> dict[str, str]:
        paths = [self.folder / "dvc.lock", *sorted((self.folder / "reports").rglob("*.*"))]
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in paths
            if path.is_file()
        }

    def stages_to_run(self, *targets: str) -> set[str]:
        dry = self.run("dvc", "repro", "--dry", *targets).stdout
        return {line.split("'")[1] for line in dry.splitlines() if line.startswith("Running stage")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    clone = Clone(tmp_path_factory.mktemp("clone"))
    clone.run("dvc", "repro")
    return clone


def test_every_stage_leaves_what_people_read(clone):
    reports = clone.folder / "reports"
    for name in (
        "prepare/toy/01_prepare.ipynb",
        "prepare/toy/figures/long_tail.svg",
        "train/toy/mcm.ipynb",
        "evaluate/toy/03_evaluate.ipynb",
        "evaluate/toy/figures/by_rarity.png",
        "evaluate/toy/tables/overall.md",
        "evaluate/toy/metrics.json",
        "compare/04_compare.ipynb",
        "compare/tables/main.csv",
        "scores.csv",
    ):
        assert (reports / name).stat().st_size > 0, name


def test_executed_notebooks_show_no_paths_and_no_times(clone):
    for path in (clone.folder / "reports").rglob("*.ipynb"):
        text = path.read_text()
        assert str(clone.folder) not in text, path.name
        assert "iopub" not in text, path.name
        assert ".partial" not in text, path.name
        assert "papermill" not in json.loads(text)["metadata"], path.name


def test_unchanged_study_is_up_to_date(clone):
    assert clone.stages_to_run() == set()
    assert "up to date" in clone.run("dvc", "status").stdout


def test_forced_run_gives_the_same_bytes(clone):
    before = clone.bytes_of_results()
    clone.run("dvc", "repro", "--force")
    assert clone.bytes_of_results() == before


def test_editing_a_variant_reruns_that_variant_and_what_depends_on_it(clone):
    original = clone.params()
    edited = clone.params()
    edited["variants"]["weighted_binary"]["weights"]["floor"] = 0.5
    clone.write_params(edited)
    try:
        stages = clone.stages_to_run()
    finally:
        clone.write_params(original)
    assert stages == {
        "train@toy-weighted_binary",
        "score@toy",
        "evaluate@toy",
        "compare",
    }


@pytest.mark.parametrize(
    ("module", "stales"),
    [
        ("pages/plots/evaluation.py", {"prepare@toy", "evaluate@toy", "compare"}),
        (
            "scores/metrics.py",
            {"prepare@toy", "score@toy", "scores", "evaluate@toy", "compare"},
        ),
    ],
)
def test_editing_a_plot_or_a_score_trains_nothing_anew(clone, module, stales):
    path = clone.folder / "src" / "rarenodes" / module
    original = path.read_text()
    path.write_text(original + "\n# changed\n")
    try:
        stages = clone.stages_to_run()
    finally:
        path.write_text(original)
    assert stages == stales


def test_the_long_table_has_every_score_of_every_seed(clone):
    table = pd.read_csv(clone.folder / "reports" / "scores.csv")
    assert list(table) == ["dataset", "variant", "seed", "measure", "nodes", "at", "score"]
    assert not table.duplicated(list(table)[:-1]).any()
    assert set(table["variant"]) == {"mcm", "weighted_binary"}
    assert {"all", "with_positives", "rare", "1–5", "depth 1"} <= set(table["nodes"])
    overall = pd.read_csv(clone.folder / "reports/evaluate/toy/tables/overall.csv")
    key = {"measure": "macro_f1", "nodes": "with_positives", "at": "half", "variant": "mcm"}
    by_seed = table[(table[list(key)] == pd.Series(key)).all(axis=1)]["score"]
    shown = overall.set_index("variant").loc["mcm", "macro_f1_with_positives_half"]
    assert by_seed.mean() == pytest.approx(shown, rel=1e-5)


@pytest.mark.parametrize("group", ["datasets", "variants"])
def test_a_name_reaches_no_shell(clone, group):
    original = clone.params()
    edited = clone.params()
    for name in ("x; touch PWNED #", "$(touch PWNED)", "x' && touch PWNED && '"):
        edited[group] = {name: next(iter(original[group].values())), **original[group]}
        clone.write_params(edited)
        try:
            failed = clone.run("dvc", "repro", check=False)
        finally:
            clone.write_params(original)
        assert failed.returncode != 0
        assert not list(clone.folder.rglob("PWNED*"))
        assert "expected a name of letters, digits, _ and -" in failed.stdout + failed.stderr


def test_metrics_can_be_compared(clone):
    shown = json.loads(clone.run("dvc", "metrics", "show", "--json").stdout)
    (metrics,) = shown[""]["data"].values()
    assert set(metrics["data"]) == {"mcm", "weighted_binary"}


def test_failing_stage_leaves_earlier_results(clone):
    def files():
        paths = (clone.folder / "results").rglob("*")
        return {path: path.read_bytes() for path in paths if path.is_file()}

    before = clone.bytes_of_results(), files()
    notebook = clone.folder / "notebooks" / "02_train.ipynb"
    original = notebook.read_text()
    notebook.write_text(original.replace("results = train(", "1 / 0; results = train("))
    try:
        failed = clone.run("dvc", "repro", check=False)
    finally:
        notebook.write_text(original)
    assert failed.returncode != 0
    assert "ZeroDivisionError" in failed.stdout + failed.stderr
    left = {path for path in files() if ".failed." in path.name}
    assert len(left) == 1
    assert {p: b for p, b in files().items() if p not in left} == before[1]
    assert clone.bytes_of_results() == before[0]
    assert clone.stages_to_run() == set()


def test_bad_parameters_stop_a_stage_before_it_starts(clone):
    original = clone.params()
    edited = clone.params()
    edited["evaluation"]["baseline"] = "mmc"
    clone.write_params(edited)
    try:
        failed = clone.run("dvc", "repro", check=False)
    finally:
        clone.write_params(original)
    assert failed.returncode != 0
    assert "did you mean 'mcm'?" in failed.stdout + failed.stderr


def with_own_data(clone: Clone) -> Path:
    """Make the clone's study one of a table of texts; the path of the table."""
    table = clone.folder / "data" / "own.csv"
    rows = [f"{animal} number {i},{animal}" for i in range(30) for animal in ("cat", "dog")]
    table.write_text("\n".join(["text,labels", *rows]) + "\n")
    (clone.folder / "data" / "edges.csv").write_text("child,parent\ncat,animal\ndog,animal\n")
    values = clone.params()
    options = {"examples": "own.csv", "hierarchy": "edges.csv", "text": "text", "components": 4}
    values["datasets"] = {"own": {"about": "own texts", "source": "table", "options": options}}
    clone.write_params(values)
    return table


def test_editing_a_file_of_own_data_prepares_it_anew(tmp_path):
    clone = Clone(tmp_path)
    table = with_own_data(clone)
    overlooked = clone.run("dvc", "repro", "prepare@own", check=False)
    assert overlooked.returncode != 0
    assert "run `python -m rarenodes pipeline`" in overlooked.stdout + overlooked.stderr
    clone.run(sys.executable, "-m", "rarenodes", "pipeline")
    clone.run("dvc", "repro", "prepare@own")
    assert "prepare@own" not in clone.stages_to_run("prepare@own")
    table.write_text(table.read_text().replace("cat number 3,cat", "cat number 3,dog"))
    assert "prepare@own" in clone.stages_to_run("prepare@own")
