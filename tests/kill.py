"""Kill a command at random moments, run it again, and compare with a run that nobody interrupted.

    python tests/kill.py [--kills 25] [--seed 0] [--alone] [--study FOLDER] [--outputs results ...]
                         [--at-the-end dvc.lock ...] [-- COMMAND ...]

Without a command, one of `python -m rarenodes train` on a small synthetic data set, with a
checkpoint after every epoch. Each trial starts from a copy of the study, kills the command with
SIGKILL after a random part of the time that a whole run takes, checks that each output that has its
final name is whole (as before the run, or as after it), runs the command again, and compares the
bytes of all outputs with those of the run that was not interrupted.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
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
  seeds: 2
  members: 2
  epochs: 20
  batch_size: 32
  learning_rate: 0.005
  hidden: 32
  layers: 1
  threads: 1
  keep_ensembles: true
variants:
  mcm: {about: the baseline}
evaluation: {baseline: mcm}
"""
TRAIN = ("train", "toy", "mcm")
# Imports once what takes longer than such a training; every run is a process forked from there.
FORKS = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Killing:
    """A command and what is compared after it.

    Attributes:
        command: what is run, in the study's folder; None for the training above.
        template: the study's folder before the first run; copied for each trial.
        outputs: files and folders, relative to the study's, whose bytes are compared; each is what
            one step of the command leaves.
        at_the_end: more of them, which the command's steps fill one after the other: compared when
            it has ended.
        alone: whether the command is killed without the processes that it has started.

    """

    command: Sequence[str] | None
    template: Path
    outputs: Sequence[str]
    at_the_end: Sequence[str] = ()
    alone: bool = False

    def start(self, folder: Path) -> multiprocessing.Process:
        process = FORKS.Process(target=_run, args=(self.command, folder))
        process.start()
        return process

    def run(self, folder: Path) -> None:
        """Run the command to its end; `RuntimeError` with its output where it fails."""
        process = self.start(folder)
        process.join()
        if process.exitcode:
            output = _log(folder).read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{self.command} failed:\n{output}")

    def kill(self, folder: Path, seconds: float) -> bool:
        """Run the command and kill it after some seconds; whether it was still running."""
        process = self.start(folder)
        process.join(seconds)
        if process.exitcode is not None:
            return False
        if self.alone or os.getpgid(process.pid) != process.pid:
            os.kill(process.pid, signal.SIGKILL)
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        return True

    def bytes_of_all(self, folder: Path) -> dict[str, str]:
        """SHA-256 of every file that is compared, by its path."""
        outputs = (*self.outputs, *self.at_the_end)
        return {k: v for output in outputs for k, v in self.bytes_of(output, folder).items()}

    def bytes_of(self, output: str, folder: Path) -> dict[str, str]:
        """SHA-256 of an output's files by their paths."""
        path = folder / output
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.is_file() and not _is_unfinished(path.relative_to(folder))
        }


def _run(command: Sequence[str] | None, folder: Path) -> None:
    """Become the command, in a session of its own."""
    os.setsid()
    os.chdir(folder)
    with _log(folder).open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if command is not None:
        os.execvp(command[0], command)
    from rarenodes.__main__ import main
    from rarenodes.training import loop

    loop.SECONDS_BETWEEN_CHECKPOINTS = 0
    sys.exit(main(TRAIN))


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def _is_unfinished(path: Path) -> bool:
    return any(part.endswith((".partial", ".replaced")) for part in path.parts)


def small_training(folder: Path) -> Killing:
    """A training of seconds on a prepared data set."""
    (folder / "params.yaml").write_text(PARAMS)
    command = (sys.executable, "-m", "rarenodes")
    Killing((*command, "prepare", "toy"), folder, ["data"]).run(folder)
    return Killing(None, folder, ["results"])


def try_killing(killing: Killing, kills: int, rng: random.Random, scratch: Path) -> list[str]:
    """What went wrong in so many trials; nothing where all is well."""
    whole = scratch / "whole"
    shutil.copytree(killing.template, whole)
    before = {output: killing.bytes_of(output, whole) for output in killing.outputs}
    started = time.monotonic()
    killing.run(whole)
    seconds = time.monotonic() - started
    after_it = {output: killing.bytes_of(output, whole) for output in killing.outputs}
    expected = killing.bytes_of_all(whole)
    problems, interrupted = [], 0
    if any(not after_it[output] or after_it[output] == before[output] for output in before):
        return ["the command did not make every output: nothing to compare"]
    for trial in range(kills):
        folder = scratch / f"trial-{trial}"
        shutil.copytree(killing.template, folder)
        after = rng.uniform(0, seconds)
        while not killing.kill(folder, after):  # the machine was faster than before
            shutil.rmtree(folder)
            shutil.copytree(killing.template, folder)
            after *= 0.8
        interrupted += 1
        left = {output: killing.bytes_of(output, folder) for output in before}
        checkpoints = len(list(folder.glob("scratch/checkpoints/*/epoch-*.safetensors")))
        print(
            f"kill {trial}: after {after:.2f} of {seconds:.2f} s, {checkpoints} checkpoints",
            flush=True,
        )
        torn = [o for o in left if left[o] not in (before[o], after_it[o])]
        if torn:
            problems.append(f"kill {trial}, after {after:.2f} s: neither old nor new: {torn}")
        killing.run(folder)
        found = killing.bytes_of_all(folder)
        different = {name for name in found | expected if found.get(name) != expected.get(name)}
        if different:
            problems.append(f"kill {trial}, after {after:.2f} s: differ: {sorted(different)}")
        if list(folder.glob("scratch/checkpoints/*")):
            problems.append(f"kill {trial}, after {after:.2f} s: checkpoints are left")
        print(
            "\n".join(f"PROBLEM {p}" for p in problems if p.startswith(f"kill {trial},"))
            or "equal",
            flush=True,
        )
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
    parser.add_argument("--at-the-end", nargs="+", default=[], metavar="FILE")
    parser.add_argument("command", nargs="*", help="instead of a small training")
    given = parser.parse_args(arguments)
    if bool(given.command) != (given.study is not None):
        parser.error("a command needs --study, and --study a command")
    os.environ |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY / "src"),
        "OMP_NUM_THREADS": "1",
    }
    FORKS.set_forkserver_preload(["rarenodes.__main__", "rarenodes.stages.train"])
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if given.command:
            killing = Killing(
                given.command, given.study, given.outputs, given.at_the_end, given.alone
            )
        else:
            (scratch / "template").mkdir()
            killing = small_training(scratch / "template")
        problems = try_killing(killing, given.kills, random.Random(given.seed), scratch)
    return min(len(problems), 1)


if __name__ == "__main__":
    sys.exit(main())
