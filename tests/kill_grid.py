"""Kill a worker, the scheduler or the command of a grid at random moments, and compare what is left.

    python tests/kill_grid.py [worker scheduler client] [--kills 10] [--seed 0] [--rates 12]

Each trial runs `python -m rarenodes grid` in a copy of a small study of searches, on a scheduler and
two workers, kills one of them with SIGKILL after a random part of the time that a whole run takes, and
runs the command again (on a new cluster where the scheduler was killed). Then all outputs must have
the bytes of a run that was not interrupted, `dvc.lock` its entries, and DVC nothing to do.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml
from dvc.repo import Repo
from kill import FORKS, Killing
from stages.test_grid import prepare_study

REPOSITORY = Path(__file__).parents[1]
OUTPUTS = ("searches", "code.json")


class Cluster:
    """A scheduler with two workers that are started anew when they die, each a process."""

    def __init__(self, folder: Path):
        self.file, self.log = folder / "scheduler.json", folder / "cluster.log"
        self.processes: list[subprocess.Popen] = []

    def start(self) -> None:
        self.file.unlink(missing_ok=True)
        common = ("--scheduler-file", str(self.file), "--no-dashboard")
        worker = ("dask_worker", "--nthreads", "1", "--memory-limit", "0", *common)
        scheduler = ("dask_scheduler", "--host", "127.0.0.1", "--port", "0", *common)
        for program, *options in (scheduler, worker, worker):
            command = [sys.executable, "-m", f"distributed.cli.{program}", *options]
            with self.log.open("a") as log:
                started = subprocess.Popen(command, cwd=self.file.parent, stdout=log, stderr=log)
            self.processes.append(started)

    def stop(self) -> None:
        for process in reversed(self.processes):
            family = [process, *psutil.Process(process.pid).children(recursive=True)]
            for member in family:
                member.kill()
            process.wait()
        self.processes.clear()

    def kill(self, victim: str, rng: random.Random) -> None:
        if victim == "scheduler":
            self.processes[0].kill()
            return
        nanny = psutil.Process(self.processes[rng.choice((1, 2))].pid)
        workers = [p for p in nanny.children() if "spawn_main" in " ".join(p.cmdline())]
        for worker in workers:
            worker.kill()


def command(folder: Path, scheduler: Path) -> None:
    """Become `python -m rarenodes grid`, in a session of its own."""
    os.setsid()
    os.chdir(folder)
    with folder.with_name(f"{folder.name}.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    from rarenodes.__main__ import main

    sys.exit(main(("grid", "--stage", "tune", "--scheduler", str(scheduler))))


def run(folder: Path, cluster: Cluster, seconds: float = 280):
    process = FORKS.Process(target=command, args=(folder, cluster.file))
    process.start()
    process.join(seconds)
    return process


def entries(folder: Path) -> dict:
    return yaml.safe_load((folder / "dvc.lock").read_text())["stages"]


def left_to_run(folder: Path) -> list[str]:
    os.chdir(folder)
    with Repo(folder) as repo:
        return [stage.name for stage in repo.reproduce(dry=True)]


def problems_of(folder: Path, expected: Path) -> list[str]:
    """What a folder has that is not what a run without interruption leaves."""
    compared = Killing(None, folder, OUTPUTS)
    found, whole = compared.bytes_of_all(folder), compared.bytes_of_all(expected)
    different = sorted(name for name in found | whole if found.get(name) != whole.get(name))
    problems = [f"differ: {different}"] if different else []
    if entries(folder) != entries(expected):
        problems.append("dvc.lock has other entries")
    if left := left_to_run(folder):
        problems.append(f"DVC would run {left}")
    if markers := list(folder.glob("scratch/grid/dvc.lock.before")):
        problems.append(f"left: {markers}")
    return problems


def try_killing(victim: str, kills: int, rng: random.Random, scratch: Path, seconds: float) -> int:
    cluster, bad = Cluster(scratch), 0
    cluster.start()
    try:
        for trial in range(kills):
            folder = scratch / f"{victim}-{trial}"
            shutil.copytree(scratch / "template", folder)
            after = rng.uniform(0, seconds)
            process = run(folder, cluster, after)
            while process.exitcode is not None:  # the machine was faster than before
                shutil.rmtree(folder)
                shutil.copytree(scratch / "template", folder)
                after *= 0.8
                process = run(folder, cluster, after)
            if victim == "client":
                os.kill(process.pid, signal.SIGKILL)
            else:
                cluster.kill(victim, rng)
            process.join(280)
            first = process.exitcode
            if victim == "scheduler":
                cluster.stop()
                cluster.start()
            again = run(folder, cluster)
            problems = problems_of(folder, scratch / "whole")
            if again.exitcode != 0:
                problems.append(f"the rerun ended with {again.exitcode}")
            if victim == "worker" and first != 0:
                problems.append(f"the command ended with {first}")
            bad += bool(problems)
            log = folder.with_name(f"{folder.name}.log").read_text()
            kept = log.count("had ended before")
            print(
                f"{victim} {trial}: killed after {after:.1f} of {seconds:.1f} s; the command ended with {first}; "
                f"{kept} kept by receipts; {'; '.join(problems) or 'equal'}",
                flush=True,
            )
            if problems:
                print(log, flush=True)
    finally:
        cluster.stop()
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("victims", nargs="*", default=["worker", "scheduler", "client"])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rates", type=int, default=12, help="how much each item trains")
    given = parser.parse_args()
    os.environ |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY / "src"),
        "OMP_NUM_THREADS": "1",
    }
    FORKS.set_forkserver_preload(["rarenodes.__main__", "rarenodes.stages.grid"])
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name).resolve()
        prepare_study(scratch / "template", rates=given.rates)
        shutil.copytree(scratch / "template", scratch / "whole")
        cluster = Cluster(scratch)
        cluster.start()
        run(scratch / "whole", cluster)  # workers import what items need
        shutil.rmtree(scratch / "whole")
        shutil.copytree(scratch / "template", scratch / "whole")
        started = time.monotonic()
        if run(scratch / "whole", cluster).exitcode != 0:
            print((scratch / "whole.log").read_text())
            return 1
        seconds = time.monotonic() - started
        cluster.stop()
        for victim in given.victims:
            bad += try_killing(victim, given.kills, random.Random(given.seed), scratch, seconds)
        print(f"{len(given.victims) * given.kills} kills, {bad} with problems")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
