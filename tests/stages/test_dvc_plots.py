"""Pages that `dvc plots` writes, drawn without a network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rarenodes.__main__ import main
from rarenodes.stages.dvc_plots import PAGE, TEMPLATE_FILES, templates

TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"
CHROMIUM = shutil.which("chromium")
# Whatever a page asks of the network fails.
SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--host-resolver-rules=MAP * 0.0.0.0",
)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A study's folder with scores to draw, as `dvc plots` finds them."""
    shutil.copy(TINY, tmp_path)
    dvc(tmp_path, "init", "--no-scm", "--quiet")
    (tmp_path / TEMPLATE_FILES).mkdir()
    for name, text in templates().items():
        (tmp_path / TEMPLATE_FILES / name).write_text(text)
    (tmp_path / "scores.csv").write_text("rarity,variant,recall\n1–5,mcm,0.25\n6–10,mcm,0.5\n")
    plot = {"template": "by_rarity", "x": "rarity", "y": {"scores.csv": "recall"}, "title": "t"}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"plots": [{"recall": plot}]}))
    return tmp_path


def dvc(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def offline(folder: Path) -> int:
    return main(["--params", str(folder / "params.yaml"), "offline-plots"])


def test_pages_of_plots_hold_what_draws_them(folder, tmp_path_factory, capsys):
    assert offline(folder) == 0
    assert capsys.readouterr().out == f"written: {folder / TEMPLATE_FILES / PAGE}\n"
    dvc(folder, "plots", "show", "--out", "plots")
    page = folder / "plots" / "index.html"
    text = page.read_text()
    assert not re.search(r"<(script|link)[^>]*(src|href)\s*=", text)
    assert '"recall": "0.25"' in text
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    profile = f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"
    wait = "--virtual-time-budget=20000"
    seen = subprocess.run(
        [CHROMIUM, *SWITCHES, profile, wait, "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert re.search(r'<svg[^>]*class="marks"', seen)


def test_other_settings_of_the_clone_stay(folder):
    local = folder / ".dvc" / "config.local"
    local.write_text("[cache]\n    type = copy\n")
    assert offline(folder) == 0
    assert offline(folder) == 0
    assert "type = copy" in local.read_text()
    assert f"html_template = plots/{PAGE}" in local.read_text()


def test_a_folder_that_is_none_of_dvcs_is_refused(tmp_path, capsys):
    shutil.copy(TINY, tmp_path)
    assert offline(tmp_path) == 1
    message = f"error: {tmp_path / '.dvc'}: there is no such folder; run `dvc init` first\n"
    assert capsys.readouterr().err == message
