"""The pipeline as a user runs it, at tiny size, in a copy of this repository.

Each process that starts costs seconds of imports: only what runs stages, or should refuse to, is a
command. What DVC would run is asked of DVC in this process.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import yaml
from dvc.repo import Repo

from rarenodes.scores.metrics import RARITY_BINS
from rarenodes.stages import pipeline
from rarenodes.stages.run import run_without_notebook
from rarenodes.study.params import Study

REPOSITORY = Path(__file__).parents[1]
TINY = Path(__file__).parent / "tiny" / "params.yaml"

pytestmark = pytest.mark.slow

# Stages one after the other, as their commands run them, each in a fork.
RUN = """
import json, os, sys
from rarenodes.stages.run import run_stage
from rarenodes.stages.table import STAGES
from rarenodes.study.params import Study

for stage, *items in json.loads(sys.argv[1]):
    if os.fork() == 0:
        run_stage(Study("params.yaml"), stage, dict(zip(STAGES[stage].items, items, strict=True)))
        sys.exit()
    _, status = os.wait()
    assert status == 0, stage
"""


class Clone:
    """A copy of the repository with a study of one data set and two variants."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def made(cls, folder: Path) -> "Clone":
        """The copy, before anything of it has run."""
        clone = cls(folder)
        for name in cls._git_files():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target)
        # Compiled code too: it is valid beside files of the same time of change.
        for path in (REPOSITORY / "src").rglob("__pycache__"):
            shutil.copytree(path, folder / path.relative_to(REPOSITORY), dirs_exist_ok=True)
        # The default study's results are none of this one's.
        shutil.rmtree(folder / "reports", ignore_errors=True)
        (folder / "dvc.lock").unlink(missing_ok=True)
        values = yaml.safe_load(TINY.read_text())
        del values["datasets"]["toy_limited"], values["variants"]["released_focal_gmu"]
        values["evaluation"]["contrasts"] = {}
        clone.write_params(values)
        clone.write_pipeline()
        clone.git("init", "--quiet")
        clone.git("add", "--all")
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        clone.git(*identity, "commit", "--quiet", "--message", "start")
        return clone

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

    @contextmanager
    def as_here(self) -> Iterator[None]:
        """In the clone's folder, where Python finds the clone's library and its programs."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
            patch.setenv("PYTHONPATH", str(self.folder / "src"))
            patch.setenv("OMP_NUM_THREADS", "1")
            yield

    def write_pipeline(self) -> None:
        """What `python -m rarenodes pipeline` does there."""
        with self.as_here(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "LIBRARY", self.folder / "src" / "rarenodes")
            patch.setattr(pipeline, "NOTEBOOKS", self.folder / "notebooks")
            pipeline.write_pipeline(Study("params.yaml"))

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.folder, check=True, capture_output=True)

    def repro(self, *arguments: str, fails: bool = False) -> str:
        """Run stages by DVC's command; what was printed."""
        return self._command("dvc", "repro", *arguments, fails=fails)

    def grid(self) -> None:
        """Run the whole study as `make repro` does, before it asks DVC what is left."""
        self._command(sys.executable, "-m", "rarenodes", "grid", "--all", "--workers", "1")

    def run_again(self, *stages: Sequence[str]) -> None:
        """Run stages, each given with its items, whatever DVC thinks of it."""
        self._command(sys.executable, "-c", RUN, json.dumps(stages))

    def _command(self, *command: str, fails: bool = False) -> str:
        with self.as_here():
            done = subprocess.run(command, capture_output=True, text=True)
        printed = done.stdout + done.stderr
        assert bool(done.returncode) == fails, printed[-3000:]
        return printed

    @contextmanager
    def dvc(self) -> Iterator[Repo]:
        with self.as_here(), Repo() as repo:
            yield repo

    def bytes_of_results(self) -> dict[str, str]:
        paths = [self.folder / "dvc.lock", *sorted((self.folder / "reports").rglob("*.*"))]
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in paths
            if path.is_file()
        }

    def stages_to_run(self, *targets: str) -> set[str]:
        with self.dvc() as repo:
            return {stage.name for stage in repo.reproduce(list(targets) or None, dry=True)}

    @contextmanager
    def edited(self, path: str, old: str, new: str) -> Iterator[None]:
        """While a file has another text at one place; the pipeline is that of the file before."""
        original = (self.folder / path).read_text()
        assert original.count(old) == 1, old
        (self.folder / path).write_text(original.replace(old, new))
        try:
            yield
        finally:
            (self.folder / path).write_text(original)

    @contextmanager
    def with_params(self, values: dict) -> Iterator[None]:
        original = self.params()
        self.write_params(values)
        try:
            yield
        finally:
            self.write_params(original)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    clone = Clone.made(tmp_path_factory.mktemp("clone"))
    clone.grid()
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


def test_tables_name_their_rows(clone):
    rarity = pd.read_csv(clone.folder / "reports" / "prepare" / "toy" / "tables" / "rarity.csv")
    assert rarity["training positives"].tolist() == [*RARITY_BINS]
    assert (rarity["nodes"] >= rarity["with test positives"]).all()


def test_executed_notebooks_show_no_paths_and_no_times(clone):
    for path in (clone.folder / "reports").rglob("*.ipynb"):
        text = path.read_text()
        assert str(clone.folder) not in text, path.name
        assert "iopub" not in text, path.name
        assert ".partial" not in text, path.name
        assert "papermill" not in json.loads(text)["metadata"], path.name


def test_unchanged_study_is_up_to_date(clone):
    assert clone.stages_to_run() == set()
    with clone.dvc() as repo:
        assert repo.status() == {}


def test_every_stage_run_again_gives_the_same_bytes(clone):
    # One training of the two; DVC then finds every output, cached ones too, as its lock has it.
    before = clone.bytes_of_results()
    clone.run_again(
        ("prepare", "toy"),
        ("train", "toy", "weighted_binary"),
        ("score", "toy"),
        ("scores",),
        ("evaluate", "toy"),
        ("compare",),
    )
    assert clone.bytes_of_results() == before
    with clone.dvc() as repo:
        assert repo.status() == {}


def test_editing_a_variant_reruns_that_variant_and_what_depends_on_it(clone):
    edited = clone.params()
    edited["variants"]["weighted_binary"]["weights"]["floor"] = 0.5
    with clone.with_params(edited):
        stages = clone.stages_to_run()
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


# Where a shell would run it: as it stands, in double quotes or in single ones.
NAME = "x; touch PWNED #$(touch PWNED)' && touch PWNED && '"


@pytest.mark.parametrize("group", ["datasets", "variants"])
def test_a_name_reaches_no_shell(clone, group):
    edited = clone.params()
    edited[group] = {NAME: next(iter(edited[group].values())), **edited[group]}
    with clone.with_params(edited):
        printed = clone.repro(fails=True)
    assert not list(clone.folder.rglob("PWNED*"))
    assert "expected a name of letters, digits, _ and -" in printed


def test_metrics_can_be_compared(clone):
    with clone.dvc() as repo:
        shown = repo.metrics.show()
    (metrics,) = shown[""]["data"].values()
    assert set(metrics["data"]) == {"mcm", "weighted_binary"}


def test_failing_stage_leaves_earlier_results(clone):
    def files():
        paths = (clone.folder / "results").rglob("*")
        return {path: path.read_bytes() for path in paths if path.is_file()}

    before = clone.bytes_of_results(), files()
    # The kernel starts, and has imported nothing yet.
    with clone.edited("notebooks/02_train.ipynb", '"import logging', '"1 / 0; import logging'):
        printed = clone.repro(fails=True)
    assert "ZeroDivisionError" in printed
    left = {path for path in files() if ".failed." in path.name}
    assert len(left) == 1
    assert {p: b for p, b in files().items() if p not in left} == before[1]
    assert clone.bytes_of_results() == before[0]
    assert clone.stages_to_run() == set()


def test_bad_parameters_stop_a_stage_before_it_starts(clone):
    edited = clone.params()
    edited["evaluation"]["baseline"] = "mmc"
    with clone.with_params(edited):
        printed = clone.repro("--single-item", "compare", fails=True)
    assert "did you mean 'mcm'?" in printed


def test_a_replay_names_todays_code_only_where_it_moves_no_byte(clone):
    lock, pipeline_file = clone.folder / "dvc.lock", clone.folder / "dvc.yaml"
    before = lock.read_text(), pipeline_file.read_text()
    replay = (sys.executable, "-m", "rarenodes", "replay")
    weighting = "src/rarenodes/loss/weighting.py"
    try:
        with clone.edited(weighting, "Also what else corrects", "And what else corrects"):
            assert "train@toy-mcm" in clone.stages_to_run()
            assert "files are the same as by the code of HEAD" in clone._command(*replay)
            assert clone.stages_to_run() == set()
    finally:
        lock.write_text(before[0])
    moved = "def _binary(counts: Tensor, num_examples: int, *, floor: float = 0.2"
    with clone.edited(weighting, f"{moved}5", f"{moved}6"):
        said = clone._command(*replay, "toy-weighted_binary", fails=True).strip().splitlines()[-1]
        assert "files differ from those of HEAD: reports/" in said
        assert "dvc.lock is what it was" in said
        said = clone._command(*replay, "toy-nothing", fails=True).strip().splitlines()[-1]
        assert said.startswith("error: 'toy-nothing': expected a data set and a variant")
        said = clone._command(*replay, "--before", "nowhere", fails=True).strip().splitlines()[-1]
        assert said.startswith("error: nowhere: git has no library of it here: ")
    assert (lock.read_text(), pipeline_file.read_text()) == before


def use_own_data(clone: Clone) -> Path:
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
    clone = Clone.made(tmp_path)
    table = use_own_data(clone)
    assert "run `python -m rarenodes pipeline`" in clone.repro("prepare@own", fails=True)
    clone.write_pipeline()
    assert "prepare@own" in clone.stages_to_run("prepare@own")
    # As the stage leaves it, but for its notebook.
    with clone.as_here():
        run_without_notebook(Study("params.yaml"), "prepare", {"dataset": "own"})
    with clone.dvc() as repo:
        repo.commit("prepare@own", force=True)
    assert clone.stages_to_run("prepare@own") == set()
    table.write_text(table.read_text().replace("cat number 3,cat", "cat number 3,dog"))
    assert clone.stages_to_run("prepare@own") == {"prepare@own"}
