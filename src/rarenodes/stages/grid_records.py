"""What DVC knows of a study's items: which are to be run, and recording those that were run."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from dvc.dependency import ParamsDependency
from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import Stage

from rarenodes.folders import StageFailed, write_whole
from rarenodes.stages.code import CODE_FILE
from rarenodes.stages.grid_item import scratch
from rarenodes.stages.pipeline import NOTEBOOKS
from rarenodes.stages.sources import LIBRARY

log = logging.getLogger(__name__)

# Of items in a message; of more, the stages are named.
MOST_NAMES = 8


@dataclass(frozen=True)
class Dependences:
    """What an item's results depend on, and what it leaves.

    Attributes:
        digest: of all that DVC would write into its lock about them.
        outputs: paths relative to the study's folder.

    """

    digest: str
    outputs: tuple[str, ...]


class Records:
    """A study's pipeline, as DVC sees it at each moment.

    Args:
        folder: of the study, with its `dvc.yaml`.

    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.lock = self.folder / "dvc.lock"
        self.before = scratch(self.folder) / "dvc.lock.before"

    def to_run(self, names: Sequence[str]) -> list[str]:
        """Those of some items that `dvc repro` would run, in its order.

        Raises:
            StageFailed: they depend on stages that it would run first.

        """
        with self._repo() as repo:
            stages = repo.reproduce([self._target(name) for name in names], dry=True)
        found = [self._name(stage) for stage in stages]
        first = [name for name in found if name not in names]
        if first:
            if len(first) > MOST_NAMES:
                first = list(dict.fromkeys(name.partition("@")[0] for name in first))
            raise StageFailed(
                f"{', '.join(first)}: to be run before these items: `dvc repro {' '.join(first)}`"
            )
        return found

    def dependences(self, names: Iterable[str]) -> dict[str, Dependences]:
        """What items depend on as it is now; nothing is written."""
        with self._repo() as repo:
            stages = self._stages(repo)
            return {name: self._dependences(stages[name]) for name in names}

    def commit(self, expected: dict[str, str]) -> list[str]:
        """Record items in `dvc.lock` and their outputs in the cache, as `dvc commit --force` does.

        Args:
            expected: by item, the digest of what its results were made from.

        Returns:
            Items that were not recorded, because what they depend on is not that any more.

        """
        changed = []
        with self._repo() as repo, self._lock_kept():
            stages = self._stages(repo)
            for name, digest in expected.items():
                if self._dependences(stages[name]).digest != digest:
                    changed.append(name)
                    continue
                # Linking the outputs to the cache would remove them for a moment.
                repo.commit(self._target(name), force=True, relink=False)
        return changed

    def name_todays_code(self) -> int:
        """Let `dvc.lock` name the library, notebooks and digests of code as they are, and nothing else.

        Only where it is known that no result would change; outputs need not be here.

        Returns:
            How many stages are recorded with other code than before.

        """
        changed = 0
        with self._repo() as repo, self._lock_kept():
            if "code" in (own := self._stages(repo)):
                repo.reproduce(self._target("code"), single_item=True)
            for stage in own.values():
                if stage.name == "code" or not all(out.hash_info for out in stage.outs):
                    continue  # it was not run yet
                before = [str(dep.hash_info) for dep in stage.deps]
                for dep in stage.deps:
                    of_code = isinstance(dep, ParamsDependency) and dep.fs_path.endswith(CODE_FILE)
                    if of_code or any(map(Path(dep.fs_path).is_relative_to, (LIBRARY, NOTEBOOKS))):
                        dep.save()
                if [str(dep.hash_info) for dep in stage.deps] != before:
                    changed += 1
                    stage.dump(update_pipeline=False)
        return changed

    def mend_lock(self) -> None:
        """Bring `dvc.lock` back if whoever wrote it was killed while it was half written.

        DVC writes it in place. Items that are missing then, or whose entry is the one that was cut,
        still have their receipts.
        """
        if not self.before.exists():
            return
        expected = set(yaml.safe_load(self.before.read_text(encoding="utf-8")).get("stages", {}))
        with self._repo() as repo:
            try:
                found = set(Lockfile(repo, str(self.lock)).load().get("stages", {}))
            except DvcException:  # no YAML, or none of a lock
                found = set()
        if not expected <= found or not self.lock.read_bytes().endswith(b"\n"):
            log.warning("%s was half written: what it was before is back", self.lock)
            write_whole(self.lock, self.before.read_text(encoding="utf-8"))
        self.before.unlink()

    @contextmanager
    def _lock_kept(self) -> Iterator[None]:
        if self.lock.exists():
            write_whole(self.before, self.lock.read_text(encoding="utf-8"))
        yield
        self.before.unlink(missing_ok=True)

    @contextmanager
    def _repo(self) -> Iterator[Repo]:
        """DVC's repository; another process of DVC in it is waited for."""
        dvc = logging.getLogger("dvc")
        level = dvc.level
        dvc.setLevel(logging.WARNING)
        try:
            with Repo(self.folder, _wait_for_lock=True) as repo:
                yield repo
        except DvcException as error:
            raise StageFailed(f"DVC: {' '.join(str(error).split())}") from None
        finally:
            dvc.setLevel(level)

    def _target(self, name: str) -> str:
        return f"{os.path.relpath(self.folder / 'dvc.yaml')}:{name}"

    def _name(self, stage: Stage) -> str:
        """Of a stage: alone, or with its file where that is not the study's."""
        own = Path(stage.path) == self.folder / "dvc.yaml"
        return stage.name if own else f"{os.path.relpath(stage.path, self.folder)}:{stage.name}"

    def _stages(self, repo: Repo) -> dict[str, Stage]:
        """All of the pipeline, by name: DVC reads the whole of it for one stage as for all."""
        return {self._name(stage): stage for stage in repo.index.stages}

    def _dependences(self, stage: Stage) -> Dependences:
        stage.save_deps()
        lines = [[dep.def_path, dep.hash_info.name, dep.hash_info.value] for dep in stage.deps]
        text = json.dumps(
            [stage.cmd, sorted(lines, key=lambda line: line[0])], sort_keys=True, default=str
        )
        outputs = tuple(
            Path(os.path.relpath(out.fs_path, self.folder)).as_posix() for out in stage.outs
        )
        return Dependences(hashlib.sha256(text.encode()).hexdigest(), outputs)
