"""Kernels that are forked: the same notebook as from one that is started, and an end with its parent."""

import os
import signal
import subprocess
import sys
import threading
import time

import nbformat
from nbformat import v4

from rarenodes.study import forked_kernel
from rarenodes.study.forked_kernel import Seed, planted

# Runs the notebook of a folder, with one thread or more; `zipapp` is what only the forked kernel has.
RUN = """
import zipapp, logging, sys, threading
from pathlib import Path
sys.modules["rfc3987_syntax"] = None
from rarenodes.study.notebook import run_notebook

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
if sys.argv[2] == "started":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
folder = Path(sys.argv[1])
run_notebook(folder / "a.ipynb", {}, {"folder": Path("out") / sys.argv[2]}, folder)
"""
CELLS = (
    "import logging, os, sys\n"
    "logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)\n"
    "logging.info('logged')\n"
    "print(os.getcwd() == os.environ['PWD_OF_TEST'], sys.stdin.read() if sys.stdin else '')",
    "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
    "from pathlib import Path\n_ = (Path(folder) / 'had').write_text(str('zipapp' in sys.modules))",
)


def notebook(folder, *cells: str) -> None:
    parameters = v4.new_code_cell('folder = ""', metadata={"tags": ["parameters"]}, id="parameters")
    made = [v4.new_code_cell(text, id=f"cell-{i}") for i, text in enumerate(cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    whole = v4.new_notebook(cells=[parameters, *made], metadata={"kernelspec": kernel})
    nbformat.write(whole, folder / "a.ipynb")


def run(folder, how: str, **settings) -> subprocess.Popen:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PWD_OF_TEST": str(folder),
    }
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), how],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        **settings,
    )  # fmt: skip


def test_a_forked_kernel_leaves_what_a_started_one_leaves(tmp_path):
    notebook(tmp_path, *CELLS)
    for process in [run(tmp_path, how) for how in ("forked", "started")]:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    forked, started = ((tmp_path / "out" / how / "a.ipynb") for how in ("forked", "started"))
    assert forked.read_text().replace("out/forked", "out/started") == started.read_text()
    first, figure, *_ = nbformat.read(forked, as_version=4).cells[2:]
    assert first.outputs[0].text == "logged\nTrue \n"
    assert "image/png" in figure.outputs[0].data
    assert (forked.parent / "had").read_text() == "True"
    assert (started.parent / "had").read_text() == "False"


def test_a_forked_kernel_that_dies_is_a_line(tmp_path):
    notebook(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    process = run(tmp_path, "forked")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "StageFailed: a.ipynb failed: Kernel died" in output


def test_a_forked_kernel_ends_with_the_process_that_it_came_from(tmp_path):
    notebook(
        tmp_path,
        "import os, time\nfrom pathlib import Path\n"
        "Path('pid').write_text(str(os.getpid()))\n"
        "time.sleep(600)",
    )
    process, pid = run(tmp_path, "forked"), tmp_path / "pid"
    while not pid.exists() or not pid.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    kernel = int(pid.read_text())
    until = time.monotonic() + 60
    while _lives(kernel):
        assert time.monotonic() < until
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that ended, and that nobody asked for its status, is there still.
    with open(f"/proc/{pid}/stat") as state:
        return state.read().rpartition(")")[2].split()[0] != "Z"


def test_a_seed_that_is_told_nothing_ends():
    seed = Seed()
    assert seed.poll() is None
    seed.close()
    assert seed.returncode == 0
    seed.send_signal(signal.SIGTERM)  # to nobody


def test_one_seed_a_process(monkeypatch):
    monkeypatch.setattr(forked_kernel, "MOST_THREADS", threading.active_count())
    monkeypatch.setattr(forked_kernel, "_BEFORE", set())
    with planted() as first:
        assert first.poll() is None
    assert first.returncode == 0
    with planted() as second:
        assert second is None


def test_no_seed_where_other_threads_run(monkeypatch):
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    monkeypatch.setattr(forked_kernel, "MOST_THREADS", 1)
    monkeypatch.setattr(forked_kernel, "_BEFORE", set())
    try:
        with planted() as seed:
            assert seed is None
    finally:
        ended.set()
        thread.join()
