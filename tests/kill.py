"""Kill a command at random moments, run it again, and compare with a run that nobody interrupted.

    python tests/kill.py [--kills 25] [--seed 0] [--alone] [--study FOLDER] [--outputs results ...] [-- COMMAND ...]

Without a command, one of `python -m rarenodes train` on a small synthetic data set, with a
checkpoint after every epoch. Each trial starts from a copy of the study, kills the command with
SIGKILL after a random part of the time that a whole run takes, checks that what has its final name
is whole (as before the run, or as after it), runs the command again, and compares the bytes of all
outputs with those of the run that was not interrupted.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PARAMS = """\
seed: 1
datasets:
  toy: {about: a small tree, source: synthetic}
training:
  seeds: 3
  members: 2
  epochs: 60
  batch_size: 8
  learning_rate: 0.005
  hidden: 32
  layers: 1
  threads: 1
  keep_ensembles: true
variants:
  mcm: {about: the baseline}
evaluation: {baseline: mcm}
"""
TRAIN = """\
import sys
from rarenodes.__main__ import main
from rarenodes.training import loop
loop.SECONDS_BETWEEN_CHECKPOINTS = 0
sys.exit(main(["train", "toy", "mcm"]))
"""


@dataclass(frozen=True)
class Killing:
    """A command and what is compared after it.

    Attributes:
        command: what is run, in the study's folder.
        template: the study's folder before the first run; copied for each trial.
        outputs: files and folders, relative to the study's, whose bytes are compared.
        alone: whether the command is killed without the processes that it has started.

    """

    command: Sequence[str]
    template: Path
    outputs: Sequence[str]
    alone: bool = False

    def start(self, folder: Path) -> subprocess.Popen:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY / "src"),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            self.command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, folder: Path) -> None:
        """Run the command to its end; `RuntimeError` with its output where it fails."""
        process = self.start(folder)
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(self.command)} failed:\n{output[-3000:]}")

    def kill(self, folder: Path, seconds: float) -> bool:
        """Run the command and kill it after some seconds; whether it was still running."""
        process = self.start(folder)
        try:
            process.communicate(timeout=seconds)
            return False
        except subprocess.TimeoutExpired:
            if self.alone:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            # What it has started may live on, and holds the other end of the pipe.
            process.stdout.close()
            process.wait()
            return True

    def bytes_of_outputs(self, folder: Path) -> dict[str, str]:
        """SHA-256 of every output file by its path."""
        files = []
        for output in self.outputs:
            path = folder / output
            files += [path] if path.is_file() else sorted(path.rglob("*"))
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.is_file() and not _is_unfinished(path.relative_to(folder))
        }


def _is_unfinished(path: Path) -> bool:
    return any(part.endswith((".partial", ".replaced")) for part in path.parts)


def small_training(folder: Path) -> Killing:
    """A training of seconds on a prepared data set."""
    (folder / "params.yaml").write_text(PARAMS)
    command = (sys.executable, "-m", "rarenodes")
    Killing((*command, "prepare", "toy"), folder, ["data"]).run(folder)
    return Killing((sys.executable, "-c", TRAIN), folder, ["results"])


def try_killing(killing: Killing, kills: int, rng: random.Random, scratch: Path) -> list[str]:
    """What went wrong in so many trials; nothing where all is well."""
    whole = scratch / "whole"
    shutil.copytree(killing.template, whole)
    before = killing.bytes_of_outputs(whole)
    started = time.monotonic()
    killing.run(whole)
    seconds = time.monotonic() - started
    expected = killing.bytes_of_outputs(whole)
    problems, interrupted = [], 0
    if not expected or expected == before:
        return ["the command left no outputs: nothing to compare"]
    for trial in range(kills):
        folder = scratch / f"trial-{trial}"
        shutil.copytree(killing.template, folder)
        after = rng.uniform(0, seconds)
        while not killing.kill(folder, after):  # the machine was faster than before
            shutil.rmtree(folder)
            shutil.copytree(killing.template, folder)
            after *= 0.8
        interrupted += 1
        left = killing.bytes_of_outputs(folder)
        checkpoints = len(list(folder.glob("scratch/checkpoints/*/epoch-*.safetensors")))
        print(
            f"kill {trial}: after {after:.2f} of {seconds:.2f} s, {checkpoints} checkpoints",
            flush=True,
        )
        if left not in (before, expected):
            problems.append(
                f"kill {trial}, after {after:.2f} s: neither old nor new: {sorted(left)}"
            )
        killing.run(folder)
        found = killing.bytes_of_outputs(folder)
        different = {name for name in found | expected if found.get(name) != expected.get(name)}
        if different:
            problems.append(f"kill {trial}, after {after:.2f} s: differ: {sorted(different)}")
        if list(folder.glob("scratch/checkpoints/*")):
            problems.append(f"kill {trial}, after {after:.2f} s: checkpoints are left")
        shutil.rmtree(folder)
    print(f"{interrupted} kills, {len(problems)} problems")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", action="store_true", help="kill the command, not its children")
    parser.add_argument("--study", type=Path, help="folder that the command runs in a copy of")
    parser.add_argument("--outputs", nargs="+", default=["results"])
    parser.add_argument("command", nargs="*", help="instead of a small training")
    given = parser.parse_args(arguments)
    if bool(given.command) != (given.study is not None):
        parser.error("a command needs --study, and --study a command")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if given.command:
            killing = Killing(given.command, given.study, given.outputs, given.alone)
        else:
            (scratch / "template").mkdir()
            killing = small_training(scratch / "template")
        problems = try_killing(killing, given.kills, random.Random(given.seed), scratch)
    print("\n".join(problems))
    return min(len(problems), 1)


if __name__ == "__main__":
    sys.exit(main())
