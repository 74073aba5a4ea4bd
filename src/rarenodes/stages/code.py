"""The stage `code`: digests of the library's code, for studies whose folder does not hold it.

DVC ignores compiled code (`.dvcignore`) inside a study's folder alone. A package outside it, given
as a dependence, would be another one as soon as Python or numba has compiled it; its files, given
one by one, would fill a lock with thousands of lines. So this stage lists the files, once, and the
others depend on their line of its table.
"""

import json

from rarenodes.folders import write_whole
from rarenodes.stages.sources import LIBRARY, source_files
from rarenodes.stages.table import STAGES
from rarenodes.study.params import Study
from rarenodes.training.checkpoints import source_digest

CODE_FILE = "code.json"


def code_files(study: Study) -> list[str]:
    """Files of the library that some stage of a study depends on, relative to the library.

    Empty ones are left out, of which DVC would warn each time; one that is filled is listed anew.
    """
    modules = [STAGES[name].modules for name in ("code", *study.parameters.stages)]
    files = source_files(LIBRARY, {module for of_stage in modules for module in of_stage})
    return [file for file in files if (LIBRARY / file).stat().st_size]


def write_code(study: Study) -> dict[str, dict[str, str]]:
    """Write `code.json`: by stage, and by package or module that it depends on, a SHA-256 digest."""
    digests = {
        name: {module: _digest(module) for module in STAGES[name].modules}
        for name in study.parameters.stages
    }
    write_whole(study.folder / CODE_FILE, json.dumps(digests, indent=2) + "\n")
    return digests


def _digest(module: str) -> str:
    return source_digest(LIBRARY, source_files(LIBRARY, [module]))
