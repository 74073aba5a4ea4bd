"""The project's files agree with each other."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from compileall import compile_dir
from pathlib import Path

import pandas as pd
import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from rattler import MatchSpec

from rarenodes.pages import prose
from rarenodes.stages.pipeline import pipeline_text
from rarenodes.stages.table import STAGES
from rarenodes.study.params import Study

REPOSITORY = Path(__file__).parents[1]
# conda's name → PyPI's.
ON_PYPI = {"pytorch": "torch"}
# Studies whose results are older than their code, as their READMEs say.
STALE = {"scale"}


def locked(name: str = "requirements.lock") -> dict[str, str]:
    lines = (REPOSITORY / name).read_text().splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normal(name): version for name, version in pins}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_lock_pins_everything_the_package_needs():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    further = project["optional-dependencies"]
    locked_elsewhere = {"site", "peers"}
    groups = [*(further[name] for name in further if name not in locked_elsewhere)]
    groups.append(project["dependencies"])
    assert names_of(groups) <= set(locked())


def names_of(groups: list[list[str]]) -> set[str]:
    return {normal(re.match(r"[\w.-]+", line)[0]) for group in groups for line in group}


def test_web_pages_have_a_lock_of_their_own_that_changes_nothing_of_the_study():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    site = locked("site/requirements.lock")
    assert names_of([project["optional-dependencies"]["site"]]) <= set(site)
    assert not set(site) & set(locked())


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


# --- the library: imports go one way, and stages list what their results depend on ---------------

LIBRARY = REPOSITORY / "src" / "rarenodes"
# A package imports from those before it, and all from the modules in the first place.
ORDER = (
    ("__init__", "settings", "randomness", "folders", "side_by_side"),
    ("loss",), ("datasets",), ("scores",), ("training",), ("inference",), ("models",), ("study",),
    ("pages",), ("stages",), ("__main__",),
)  # fmt: skip
PLACE = {room: place for place, rooms in enumerate(ORDER) for room in rooms}


def module_file(module: str) -> Path | None:
    path = REPOSITORY / "src" / module.replace(".", "/")
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((c for c in candidates if c.exists()), None)


def imports(source: str) -> set[Path]:
    """Files of the library that a source imports itself."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rarenodes"):
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules = [a.name for a in node.names if a.name.startswith("rarenodes")]
        else:
            continue
        found |= {module_file(module) for module in modules} - {None}
    return found


def imported(source: str) -> set[Path]:
    """Files of the library that a source imports, and what these import."""
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        new = imports(waiting.pop()) - found
        found |= new
        waiting += [path.read_text() for path in new]
    return found


def room(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda p: str(p.stem))
def test_imports_go_one_way(path):
    source = path.read_text()
    if path == LIBRARY / "__init__.py":
        source = source.split("if TYPE_CHECKING")[0]  # names are imported when they are used
    for other in imports(source):
        assert PLACE[room(other)] <= PLACE[room(path)], f"{path.name} imports {other}"


def test_importing_the_package_loads_no_torch_and_its_names_are_there():
    # Nor do the names load PyTorch's tracer or what notebooks are read with: each takes seconds.
    code = (
        "import sys, rarenodes; assert 'torch' not in sys.modules; "
        "[getattr(rarenodes, name) for name in rarenodes.__all__]; "
        "assert set(rarenodes.__all__) == set(rarenodes._HOMES); "
        "import rarenodes.__main__, rarenodes.pages.prose; "
        "assert not {'torch._dynamo', 'nbformat'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What the code of a stage imports without its results depending on it: what was used before it, and,
# for trainings, what their executed notebooks show.
NO_DEPENDENCE = {
    "code": {"training", "datasets", "loss", "scores", "inference", "pages"},
    "prepare": {"training", "inference"},
    "train": {"pages", "scores", "datasets", "inference"},
    "tune": {"datasets", "inference", "pages"},
    "tuned": {"datasets", "inference", "loss", "training"},
    "combine": {"datasets", "inference"},
    "score": {"training", "datasets", "loss", "inference"},
    "scores": {"training", "datasets", "loss", "inference"},
    "evaluate": {"training", "datasets", "loss"},
    "compare": {"training", "datasets", "loss", "scores"},
    "images": {"training", "datasets", "loss", "scores"},
    "scale": {"training", "datasets", "loss"},
    "gallery": {"datasets", "scores", "inference"},
    "audit": set(),
}


@pytest.mark.parametrize("name", list(STAGES))
def test_stages_list_what_they_depend_on(name):
    stage = STAGES[name]
    source = f"from rarenodes.stages import {'score' if name == 'scores' else name}"
    if stage.notebook is not None:
        cells = json.loads((REPOSITORY / "notebooks" / stage.notebook).read_text())["cells"]
        source = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    listed = stage.modules
    assert all((LIBRARY / module).exists() for module in listed)
    for path in imported(source):
        inside = path.relative_to(LIBRARY).as_posix()
        if inside in ("__init__.py", "stages/__init__.py"):
            continue  # they hold no numbers
        covered = any(inside == entry or inside.startswith(f"{entry}/") for entry in listed)
        assert covered or room(path) in NO_DEPENDENCE.get(name, set()), inside


STUDIES = [REPOSITORY, *sorted(p.parent for p in REPOSITORY.glob("studies/*/params.yaml"))]


@pytest.mark.parametrize("folder", STUDIES, ids=lambda p: p.name)
def test_pipelines_are_written_from_the_table_of_stages(folder):
    study = Study(folder / "params.yaml")
    assert (folder / "dvc.yaml").read_text() == pipeline_text(study)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "notebooks").glob("*.ipynb")), ids=str)
def test_notebooks_hold_no_outputs_and_no_functions(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    assert not any(re.search(r"^\s*(def|class) ", "".join(c["source"]), re.M) for c in code)


@pytest.mark.parametrize("folder", STUDIES, ids=lambda p: p.name)
def test_committed_lock_matches_the_code(folder):
    """`dvc repro` on an unchanged clone has nothing to do; after an edit, run it first."""
    if not (folder / "dvc.lock").exists():
        pytest.skip("no results are committed yet")
    if folder.name in STALE:
        assert "out of date" in (folder / "README.md").read_text()
        pytest.skip("its README says what is out of date")
    compile_dir(LIBRARY, quiet=1)  # what Python leaves beside the sources is not the code
    done = subprocess.run(
        ["dvc", "repro", "--allow-missing", "--dry"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stdout.splitlines() if line.startswith("Running stage")]


def test_settings_that_the_readme_changes_can_be_changed(tmp_path):
    changes = re.findall(r"dvc exp run -S '?([^'\s]+)", (REPOSITORY / "README.md").read_text())
    assert [change.startswith("+") for change in changes] == [False, True]
    for change in changes:
        for name in ("params.yaml", "variants.yaml", "studies/tuning/budgets.yaml"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, tmp_path / name)
        apply_overrides(tmp_path / "params.yaml", [change])
        changed = Study(tmp_path / "params.yaml").parameters
        assert changed != Study(REPOSITORY / "params.yaml").parameters


def test_columns_that_the_readme_keeps_are_there():
    kept = re.search(r"dvc exp show .*--keep '(.*)'", (REPOSITORY / "README.md").read_text())[1]
    columns = ["training.hidden"]
    for path in sorted(REPOSITORY.glob("reports/evaluate/*/metrics.json")):
        scores = json.loads(path.read_text())
        place = path.relative_to(REPOSITORY).as_posix()
        columns += [f"{place}:{variant}.{name}" for variant in scores for name in scores[variant]]
    for pattern in kept.split("|"):
        assert len([column for column in columns if re.match(pattern, column)]) == 1, pattern


PROSE = [
    *("README.md", "CLAIMS.md"),
    *(
        f"studies/{name}/README.md"
        for name in (
            *("audit", "claims", "committees", "repeat", "survey", "benchmark", "decay"),
            *("images_slice", "images_weak", "genes", "hidden", "hidden_repeat", "audit_repeat"),
        )
    ),
]


@pytest.mark.parametrize("name", PROSE)
def test_prose_says_what_the_tables_say(name):
    if rebuilt((REPOSITORY / name).parent / "reports"):
        pytest.skip(
            "the tables here are not those committed: `python -m rarenodes prose` follows them"
        )
    assert prose.check(REPOSITORY / name) == []


def verdicts_of(
    folder: Path, variants: list[str], measure: str, nodes: str, at: str
) -> pd.DataFrame:
    """A study's verdicts on one score, a row for each of these variants, reference and data set."""
    table = pd.read_csv(folder / "reports" / "compare" / "tables" / "differences.csv")
    of_score = (table["measure"] == measure) & (table["nodes"] == nodes) & (table["at"] == at)
    return table[of_score & table["variant"].isin(variants)]


def test_the_first_screen_says_what_the_tables_say():
    said = (REPOSITORY / "README.md").read_text()
    found, ranked = ("macro_recall", "half"), ("macro_average_precision", "none")
    benchmark, decay, repeat = (
        REPOSITORY / "studies" / name for name in ("benchmark", "decay", "repeat")
    )
    if rebuilt(REPOSITORY / "reports"):
        pytest.skip("the tables here are not those committed, by which the sentences were written")

    def verdicts(folder: Path, variant: str, score: tuple[str, str]) -> list[str]:
        table = verdicts_of(folder, [variant], score[0], "rare", score[1])
        baseline = "baseline" if folder in (benchmark, decay) else "mcm"
        return sorted(table[table["baseline"] == baseline]["verdict"])

    assert "clearly more of them at the threshold of 0.5 on all three, both times" in said
    assert (
        "clearly better on one and clearly worse on one, both times, and on the third clearly worse "
        "once and not told apart once" in said
    )
    assert verdicts(REPOSITORY, "weighted_binary", ranked) == ["better", "worse", "worse"]
    assert verdicts(repeat, "weighted_binary", ranked) == ["better", "unclear", "worse"]
    assert "on two of the sources (on the third the first time), and on all three such" in said
    network, committee = "conditional_unseen_constant", "committee_conditional"
    assert verdicts(REPOSITORY, network, ranked) == ["better"] * 3
    assert verdicts(repeat, network, ranked) == ["better", "better", "unclear"]
    for study in (REPOSITORY, repeat):
        assert verdicts(study, "weighted_binary", found) == ["better"] * 3
        assert verdicts(study, committee, ranked) == ["better"] * 3
    assert (
        "the weights find clearly more at 0.5 on four and rank clearly better on one (the rest"
        in said
    )
    assert verdicts(benchmark, "text_binary", found).count("better") == 4
    assert verdicts(benchmark, "text_binary", ranked) == ["better"] + ["untestable"] * 4
    assert "where the plain loss without weight decay does so, too" in said
    assert verdicts(decay, "baseline_no_decay", ranked) == [
        "better",
        "untestable",
    ]
    assert len(verdicts(benchmark, "text_binary", ranked)) == 5


def test_the_audit_says_what_its_tables_say():
    folder = REPOSITORY / "studies" / "audit"
    said = " ".join((folder / "README.md").read_text().split())
    effects = pd.read_csv(folder / "reports" / "audit" / "tables" / "effects.csv")
    pair = effects[(effects["off"] == "authors_baseline") & (effects["on"] == "replica")]
    pair = pair[pair["at"] != "tuned"].set_index(["measure", "nodes"])
    assert pair.loc[("micro_average_precision", "all"), "off_score"] == pytest.approx(
        0.255, abs=4e-3
    )
    ranking = pair[pair["at"] == "none"]["verdict"]
    assert "**No ranking score is clearly better**" in said
    assert "better" not in set(ranking)
    assert pair.loc[("macro_recall", "with_positives"), "verdict"] == "better"
    nodes = pd.read_parquet(folder / "scores" / "cellcycle_FUN" / "nodes.parquet")
    counts = nodes.groupby("variant")[["true_positives_half", "false_positives_half"]].sum()
    found = (counts / nodes["seed"].nunique()).round().astype(int)
    (hits, alarms), (before, alarms_before) = (
        found.loc[name].tolist() for name in ("replica", "authors_baseline")
    )
    assert (
        f"{hits:,} pairs of an example and a node of 11,421 where the baseline finds {before}"
        in said
    )
    assert f"with {alarms:,} false alarms and not {alarms_before}" in said


def rebuilt(reports: Path) -> bool:
    """Whether reports differ from those committed, as on another kind of processor in the last bits."""
    command = ["git", "diff", "--quiet", "HEAD", "--", str(reports)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True).returncode == 1


def test_files_for_citing_agree_with_the_package():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    archive = json.loads((REPOSITORY / ".zenodo.json").read_text())
    for found in (citation, archive):
        assert found["version"] == project["version"]
        assert found["license"] == project["license"]
        assert found["title"] == citation["title"]
        assert found["keywords"] == citation["keywords"]
    assert [c["name"] for c in archive["creators"]] == [a["name"] for a in citation["authors"]]


def test_reproducibility_is_answered_question_by_question():
    text = (REPOSITORY / "REPRODUCIBILITY.md").read_text()
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    answers = [row[1].strip() for row in rows if row[1].strip() not in ("answer", "---")]
    assert len(answers) > 20
    assert set(answers) <= {"yes", "partly", "no", "not applicable"}
    assert all(row[2].strip() for row in rows)


def test_the_claims_at_a_glance_say_what_the_tables_say():
    said = (REPOSITORY / "CLAIMS.md").read_text()
    of_paper = [
        *("text_classwise", "text_binary", "text_classwise_bbma", "text_binary_gmu"),
        *("text_binary_schedule", "code_classwise", "code_classwise_bbma"),
    ]
    f1 = verdicts_of(
        REPOSITORY / "studies" / "benchmark", of_paper, "macro_f1", "with_positives", "half"
    )
    counted = f1[f1["baseline"] == "baseline"]["verdict"].value_counts()
    assert f"clearly higher in {counted['better']} of {counted.sum()} comparisons" in said
    assert f"clearly lower in {counted['worse']}; [tuned]" in said
    assert "clearly lower F1 at 0.5 than [HROS-PD]" in said
    assert "on all five sets" in said
    assert f1[f1["baseline"] == "hros_pd"]["verdict"].tolist() == ["worse"] * 5


def test_gene_sets_at_equal_budgets_say_what_the_tables_say():
    said = (REPOSITORY / "CLAIMS.md").read_text() + (REPOSITORY / "README.md").read_text()
    binary = ["weighted_binary", "weighted_binary_focal_gmu"]
    of_paper = [*binary, "released_focal_bbma"]
    found = verdicts_of(REPOSITORY / "studies" / "genes", binary, "macro_recall", "rare", "half")
    assert (
        "[tuned](studies/genes/README.md), on five sets: clearly more found on all, ranking not told "
        "apart" in said
    )
    found = found[found["baseline"] == "mcm"]
    assert found["dataset"].nunique() == 5
    assert set(found["verdict"]) == {"better"}
    ranked = verdicts_of(
        REPOSITORY / "studies" / "genes", of_paper, "macro_average_precision", "rare", "none"
    )
    assert "none of the paper's three variants ranks them clearly better or worse" in said
    assert not {"better", "worse"} & set(ranked[ranked["baseline"] == "mcm"]["verdict"])
    f1 = verdicts_of(
        REPOSITORY / "studies" / "genes", of_paper, "macro_f1", "with_positives", "half"
    )
    f1 = f1[f1["baseline"] == "mcm"]["verdict"]
    assert (
        "clearly higher in 14 of 15 on five sets, average precision in none (clearly lower in two)"
        in said
    )
    assert ((f1 == "better").sum(), len(f1)) == (14, 15)


def test_neighbours_in_the_hidden_layer_say_what_the_tables_say():
    said = " ".join((REPOSITORY / "studies" / "hidden" / "README.md").read_text().split())
    score = ("macro_average_precision", "rare", "none")

    def verdicts(variant: str, reference: str) -> list[list[str]]:
        tables = [
            verdicts_of(REPOSITORY / "studies" / name, [variant], *score)
            for name in ("hidden", "hidden_repeat")
        ]
        return [table[table["baseline"] == reference]["verdict"].tolist() for table in tables]

    assert (
        "in the hidden layer rank clearly better than neighbours in the features** on all" in said
    )
    assert verdicts("neighbours_hidden", "neighbours") == [["better"] * 3] * 2
    assert "by its words the idea does not earn its place" in said
    assert "on the two others, with small gains that are clear of 0, once more" in said
    four = verdicts("committee_hidden", "conditional_unseen_constant_4")
    assert four == [["same", "same", "better"]] * 2


@pytest.mark.parametrize("dataset", ["icd10cm_limited", "hpo", "attack"])
@pytest.mark.parametrize("variant", ["conditional_unseen_constant", "linear_conditional"])
def test_models_that_are_kept_score_as_the_first_runs_of_the_default_study(dataset, variant):
    report = REPOSITORY / "studies" / "models" / "reports" / "models" / dataset / variant
    lines = (report / "card.md").read_text(encoding="utf-8").splitlines()
    (said,) = [line.split("|")[2] for line in lines if line.startswith("| average precision, mean")]
    scores = pd.read_csv(REPOSITORY / "reports" / "scores.csv")
    of_run = scores.query(
        "dataset == @dataset and variant == @variant and seed == 0 and at == 'none' and "
        "measure == 'macro_average_precision' and nodes == 'with_positives'"
    )
    assert said.strip() == f"{of_run['score'].item():.3f}"


def test_what_the_readme_says_of_speed_is_what_was_measured():
    said = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    tables = REPOSITORY / "reports" / "benches" / "tables"
    steps = pd.read_csv(tables / "steps.csv")
    ratios = steps[steps["way"].isin(["coherent", "coherent, weights, gmu"])]["ratio"]
    assert f"{ratios.min() - 1:.2f} {ratios.max() - 1:.2f}" == "0.03 0.11"
    assert "3 to 11 per cent of a training step" in said
    epochs = pd.read_csv(tables / "icd10cm_sparse.csv")
    assert f"takes {epochs['seconds'].median():.1f} s an epoch on two cores and " in said
    assert f"{epochs['peak_bytes'].max() / 1e9:.1f} GB, a tree or a DAG of a million" in said
    million = pd.read_csv(tables / "million.csv")
    seconds, memory = million["epoch_seconds"].max(), million["peak_bytes"].max() / 1e9
    assert f"200,000 examples {seconds:.0f} s and {memory:.1f} GB" in said
    by_size = pd.read_csv(tables / "sparse.csv")["us_per_active_node"]
    assert f"rises by {by_size.max() / by_size.min() - 1:.0%}".replace("%", " %") in said
    ways = pd.read_csv(tables / "napkinxc.csv").set_index("way")
    ours, theirs = ways.loc["conditional_sparse of terms"], ways.loc["napkinXC, PLT"]
    for column in ("precision_at_1", "average_precision 0", "average_precision 1–5"):
        pair = f"{ours[column]:.3f}, {theirs[column]:.3f}".replace("0.", ".")
        assert pair in said
    assert f"({theirs['training_seconds']:.0f} s, {ours['training_seconds']:.0f} s)" in said
    leaf = f"({theirs['leaf_precision_at_1']:.3f}, {ours['leaf_precision_at_1']:.3f})"
    assert leaf.replace("0.", ".") in said
