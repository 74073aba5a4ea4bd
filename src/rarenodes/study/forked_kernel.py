"""Kernels forked from a process that has imported what their notebooks import.

A kernel is an interpreter of its own, whose first seconds go into imports that the process which runs
the notebook has behind it. Forked from that process it has them too, and starts in no time.
"""

import atexit
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from jupyter_client.provisioning import LocalProvisioner

LAUNCHER = "ipykernel_launcher"
# Of files that a process may have open, more than any has.
MOST_FILES = 1 << 16
# Of the process that is forked.
MOST_THREADS = 1
# What this process has done before.
_BEFORE: set[str] = set()


class Seed:
    """A process forked from this one that waits to be told of which kernel it is to be the process.

    Has those methods of `subprocess.Popen` that Jupyter calls.
    """

    stdin = stdout = stderr = None

    def __init__(self):
        reading, self._orders = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _wait_and_become(reading)
        os.close(reading)

    def become(self, arguments: Sequence[str], folder: str, environment: Mapping[str, str]) -> None:
        """Be a kernel with these command line arguments from now on."""
        order = {"arguments": arguments, "folder": folder, "environment": environment}
        with os.fdopen(self._orders, "w") as orders:
            json.dump(order, orders)
        self._orders = None

    def poll(self) -> int | None:
        """The exit status, or None while it lives."""
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        """The exit status, once there is one."""
        while self.poll() is None:
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, signal: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal)

    def close(self) -> None:
        """End it if it was never told anything."""
        if self._orders is not None:
            os.close(self._orders)
            self.wait()


class ForkedKernel(LocalProvisioner):
    """Jupyter's account of a kernel's process, where this comes from a seed."""

    seed: Seed

    async def launch_kernel(self, cmd: list[str], **settings: Any) -> dict[str, Any]:
        """Let the seed become the kernel that a command would start."""
        at = cmd.index(LAUNCHER) + 1
        self.seed.become(cmd[at:], os.path.abspath(settings.get("cwd") or "."), settings["env"])
        self.process = self.seed
        self.pid = self.pgid = self.seed.pid  # it leads a session of its own
        return self.connection_info


@contextmanager
def planted() -> Iterator[Seed | None]:
    """A seed for one kernel; None where a fork would inherit what it cannot use.

    That is where other threads run, whose locks it would find held, and where a notebook was run before,
    of which event loops and sockets are left.
    """
    if threading.active_count() > MOST_THREADS or "planted" in _BEFORE:
        yield None
        return
    _BEFORE.add("planted")
    made = Seed()
    try:
        yield made
    finally:
        made.close()


def _wait_and_become(reading: int) -> NoReturn:
    """What the forked process does. It never returns: what is on the stack is its parent's to end."""
    status = 1
    try:
        # Locks and pipes are the parent's; what it registered for its end is not for this one's.
        os.closerange(3, reading)
        os.closerange(reading + 1, MOST_FILES)
        atexit._clear()
        with os.fdopen(reading) as orders:
            order = orders.read()
        if order:
            _become_kernel(**json.loads(order))
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # the last one to know of it
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            # As an interpreter does at its end.
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _become_kernel(arguments: Sequence[str], folder: str, environment: Mapping[str, str]) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.argv = [LAUNCHER, *arguments]
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()
