"""Running a notebook as a stage: papermill, with outputs that depend on inputs alone.

On success each output folder is replaced as a whole; on failure earlier results stay as they were.
"""

import json
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from rarenodes.folders import StageFailed, empty_folder, replace_folder
from rarenodes.loss.kernels import COMPILING
from rarenodes.settings import SettingsError, unknown_name
from rarenodes.study.forked_kernel import ForkedKernel, Seed, planted

ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")


class _PrivateKernelManager(AsyncKernelManager):
    """Talks to its kernel through sockets in a folder of its own, not over TCP.

    Attributes:
        seed: what the kernel grows from; None for a process that is started anew.

    """

    seed: Seed | None = None

    def __init__(self, **settings):
        super().__init__(**settings)
        self._sockets = tempfile.TemporaryDirectory(prefix="kernel-")
        self.transport, self.ip = "ipc", f"{self._sockets.name}/socket"

    async def _async_pre_start_kernel(self, **settings):
        if self.seed is not None:
            self.kernel_id = str(uuid.uuid4())
            self.provisioner = ForkedKernel(
                kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self
            )
            self.provisioner.seed = self.seed
        return await super()._async_pre_start_kernel(**settings)

    pre_start_kernel = _async_pre_start_kernel


def _manager_with(seed: Seed | None) -> type[_PrivateKernelManager]:
    """Of a class of its own: nbclient makes the manager, with nothing but a configuration."""
    return type("KernelManagerWithSeed", (_PrivateKernelManager,), {"seed": seed})


def run_notebook(
    notebook: Path,
    parameters: Mapping[str, Any],
    folders: Mapping[str, Path],
    working_directory: Path,
) -> Path:
    """Execute a notebook and put what it wrote, and its executed copy, into its output folders.

    While it runs, the notebook writes to `<folder>.partial`. When it has ended well, timings,
    random ids and memory addresses are removed from the executed copy, so that an unchanged stage
    leaves unchanged bytes, and the folders take the place of the earlier ones.

    Args:
        notebook: path of the notebook.
        parameters: values for its parameters cell.
        folders: output folders by parameter name, relative to the working directory; the executed
            copy goes into the first.
        working_directory: where the kernel runs.

    Returns:
        The path of the executed copy.

    Raises:
        SettingsError: a parameter that the notebook's parameters cell does not have.
        StageFailed: a cell raised; the notebook as far as it came is in `<folder>.failed.ipynb`.

    """
    _check_parameters(notebook, [*parameters, *folders])
    partial = {name: Path(f"{path}.partial") for name, path in folders.items()}
    for path in partial.values():
        empty_folder(working_directory / path)
    first = next(iter(folders))
    executed = working_directory / partial[first] / notebook.name
    failed = working_directory / f"{folders[first]}.failed.ipynb"
    try:
        with planted() as seed:
            papermill.execute_notebook(
                notebook,
                executed,
                parameters={**parameters, **{name: str(path) for name, path in partial.items()}},
                cwd=working_directory,
                kernel_name="python3",
                kernel_manager_class=_manager_with(seed),
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
            )
        _normalise(executed, {str(partial[name]): str(path) for name, path in folders.items()})
    except (PapermillExecutionError, DeadKernelError, StageFailed) as error:
        failed.unlink(missing_ok=True)
        if executed.exists():
            executed.replace(failed)
        for path in partial.values():
            shutil.rmtree(working_directory / path)
        raise StageFailed(
            f"{notebook.name} failed: {_describe(error)}\n"
            f"as far as it came: {failed}; earlier results are unchanged"
        ) from None
    failed.unlink(missing_ok=True)
    for name, path in folders.items():
        replace_folder(working_directory / partial[name], working_directory / path)
    return working_directory / folders[first] / notebook.name


def _check_parameters(notebook: Path, given: list[str]) -> None:
    if not notebook.exists():
        raise SettingsError(f"{notebook}: no such notebook")
    known = papermill.inspect_notebook(str(notebook))
    for name in given:
        if name not in known:
            raise unknown_name("parameter", name, known, notebook.name)


def _describe(error: PapermillExecutionError | DeadKernelError | StageFailed) -> str:
    if not isinstance(error, PapermillExecutionError):
        return str(error)
    return f"{error.ename}: {error.evalue}\nin cell {error.exec_count}:\n{error.source}"


def _normalise(path: Path, renamed: Mapping[str, str]) -> None:
    """Remove from an executed notebook what differs between two equal runs."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill", None)
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
            for partial, final in renamed.items():
                cell.source = cell.source.replace(partial, final)
        if cell.cell_type == "code":
            cell.outputs = _merged(cell.outputs)
            _check_no_absolute_paths(cell, number)
    nbformat.write(notebook, path)


def _merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Adjacent pieces of one stream joined: where a kernel splits them is chance."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and merged and merged[-1].get("name") == output.name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    for output in merged:
        if output.output_type == "stream":
            # Whether something had to be compiled is chance: a machine's first run does it.
            output.text = output.text.replace(f"{COMPILING}\n", "")
        elif "text/plain" in output.get("data", {}):
            output.data["text/plain"] = ADDRESS.sub("", output.data["text/plain"])
    return [o for o in merged if o.output_type != "stream" or o.text]


def _check_no_absolute_paths(cell: NotebookNode, number: int) -> None:
    """A path of this machine in an output, from a warning for instance, is a fault to mend."""
    outputs = json.dumps(cell.outputs)
    for path in (Path.cwd(), Path.home(), sys.prefix, Path(__file__).parent, tempfile.gettempdir()):
        if f"{path}/" in outputs:
            raise StageFailed(f"the output of cell {number} shows a path of this machine: {path}")
