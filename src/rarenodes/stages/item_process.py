"""The process beside a worker of a grid that runs its items, each in a fork of its own.

It imports what stages need once, and has one thread, so that forks of it are safe: an item starts in no
time, and leaves nothing behind. It ends with its worker, and an item under way with it.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

# Of the worker's end of the pipes, in file descriptors.
ORDERS, ANSWERS = 0, 1


class ItemProcess:
    """The worker's side; the process is started with the first item."""

    def __init__(self):
        self._process: subprocess.Popen[str] | None = None

    def run(self, params_file: Path, stage: str, items: Mapping[str, str], output: Path) -> str:
        """Run a stage as the pipeline does.

        Args:
            params_file: of the study.
            stage: its name.
            items: data set and variant, as the stage needs.
            output: file for what is printed meanwhile.

        Returns:
            What failed, in a line; empty if nothing did.

        """
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rarenodes.stages.item_process"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                # Whoever interrupts the command interrupts workers, and they this.
                start_new_session=True,
                # Items of this machine's other workers have the other cores; results don't depend on it.
                env={"LOKY_MAX_CPU_COUNT": "1", **os.environ},
            )  # fmt: skip
        order = {
            "params_file": str(params_file),
            "stage": stage,
            "items": dict(items),
            "output": str(output),
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            return f"the process that ran it ended, with status {self._process.wait()}"
        return json.loads(answer)


def serve() -> None:
    """Run what is ordered, one item after the other, until the worker is gone."""
    # Imported for the forks.
    import rarenodes.stages.evaluate
    import rarenodes.stages.run
    import rarenodes.stages.train
    import rarenodes.study.notebook  # noqa: F401

    while order := _next_order():
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _run_and_exit(writing, **order)
        os.close(writing)
        answer = _answer_of(child, reading)
        os.write(ANSWERS, f"{json.dumps(answer)}\n".encode())


def _next_order() -> dict | None:
    line = sys.stdin.readline()
    return json.loads(line) if line else None


def _answer_of(child: int, reading: int) -> str:
    """What a fork says of its item; ends it, and this process, if the worker goes meanwhile."""
    ready, _, _ = select.select([ORDERS, reading], [], [])
    if ORDERS in ready:  # at its end: a worker orders nothing before it has its answer
        os.kill(child, signal.SIGKILL)
        sys.exit()
    with os.fdopen(reading) as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        return f"the process that ran it ended, with status {os.waitstatus_to_exitcode(status)}"
    return json.loads(answer)


def _run_and_exit(
    writing: int, params_file: str, stage: str, items: dict[str, str], output: str
) -> None:
    from rarenodes.stages.run import run_stage
    from rarenodes.study.params import Study

    failed = ""
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        os.chdir(Path(params_file).parent)
        run_stage(Study(params_file), stage, items)
    except Exception as error:
        traceback.print_exc()
        failed = _in_a_line(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(writing, json.dumps(failed).encode())
    os._exit(0)


def _in_a_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    found = text[0] if text else ""
    if isinstance(error, ValueError | OSError | RuntimeError) and found:
        return found
    return f"{type(error).__name__}: {found}".removesuffix(": ")


if __name__ == "__main__":
    serve()
