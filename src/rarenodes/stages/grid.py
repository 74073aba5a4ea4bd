"""Items of a stage on several machines, or on all cores of one: sent to workers of Dask.

A worker that dies costs its item another try, on another worker and from the last checkpoint. The
death of Dask's scheduler, or of this command, costs running the command again: an item that ended
well has left a receipt, and is recorded then.
"""

import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from rarenodes.folders import StageFailed
from rarenodes.settings import SettingsError, unknown_name
from rarenodes.side_by_side import processes
from rarenodes.stages.grid_item import (
    Item,
    Needed,
    Outcome,
    Receipt,
    code_of,
    finished_before,
    library_digests,
    run_item,
    scratch,
    unfit,
    versions,
)
from rarenodes.stages.pipeline import check_pipeline
from rarenodes.stages.table import STAGES, Stage
from rarenodes.study.params import PACKAGES, Study

try:
    import dask
    from distributed import Client, KilledWorker, LocalCluster, as_completed

    from rarenodes.stages.grid_records import Records
except ImportError as error:
    raise SettingsError(
        f"a grid needs Dask and DVC: pip install 'rarenodes[study,cluster]' ({error})"
    ) from None

log = logging.getLogger(__name__)

# How often an item is sent anew because it came to a worker that is not one for the study.
MOST_TRIES = 5
# Until files that another machine wrote are seen here: network file systems look again after a minute.
SECONDS_TO_SEE = 90.0
SECONDS_TO_CONNECT = 30.0
# Items that ended meanwhile are recorded together; their receipts keep what they are.
SECONDS_BETWEEN_RECORDS = 30.0


def run_grid(
    study: Study,
    stage: str = "train",
    wanted: Sequence[str] = (),
    scheduler: str | None = None,
    workers: int | None = None,
) -> None:
    """Run those of a stage's items that `dvc repro` would run, and record them in `dvc.lock`.

    Args:
        study: with its `dvc.yaml`, in a folder that all workers see under the same path.
        stage: its name; one that is run for no items is one item.
        wanted: names or patterns of items, `toy-mcm` or `toy-*`; all if empty.
        scheduler: address of Dask's scheduler, or its scheduler file; None for workers here.
        workers: how many here, if not one a core (fewer, if trainings have several threads).

    Raises:
        SettingsError: no such items, or workers that are not ones for this study.
        StageFailed: items failed, after all others ended; or the scheduler died.

    """
    _run_stages(study, {stage: wanted}, scheduler, workers)


def run_whole_grid(study: Study, scheduler: str | None = None, workers: int | None = None) -> None:
    """Run all stages of a study, one after the other, as `run_grid` does each.

    Args:
        study: as in `run_grid`.
        scheduler: as in `run_grid`.
        workers: as in `run_grid`.

    Raises:
        SettingsError: workers that are not ones for this study.
        StageFailed: items of a stage failed, after all others of it ended; or the scheduler died.

    """
    _run_stages(study, dict.fromkeys(stage_names(study), ()), scheduler, workers)


def _run_stages(
    study: Study,
    stages: Mapping[str, Sequence[str]],
    scheduler: str | None,
    workers: int | None,
) -> None:
    study = Study(Path(study.params_file).resolve())
    check_pipeline(study)
    names = {stage: item_names(study, stage, wanted) for stage, wanted in stages.items()}
    records = Records(study.folder)
    records.mend_lock()
    with (
        _marked(study.folder) as marker,
        _Connection(scheduler, workers or _room(study)) as connection,
    ):
        for stage, of_stage in names.items():
            _run_stage(study, stage, of_stage, records, marker, connection)


def _run_stage(
    study: Study,
    stage: str,
    names: Mapping[str, dict[str, str]],
    records: Records,
    marker: Path,
    connection: "_Connection",
) -> None:
    to_run = records.to_run(list(names))
    log.info("%s: %d items, %d of them up to date", stage, len(names), len(names) - len(to_run))
    if not to_run:
        return
    depends = records.dependences(to_run)
    modules = STAGES[stage].modules
    needed = Needed(
        marker, stage, modules, code_of(modules, library_digests()),
        versions(("python", *PACKAGES)),
    )  # fmt: skip
    items = [
        Item(name, study.params_file, names[name], depends[name].outputs, depends[name].digest, needed)
        for name in to_run
    ]  # fmt: skip
    progress = _Progress(records, items)
    progress.record({item: receipt for item in items if (receipt := finished_before(item))})
    if progress.waiting:
        _send(connection.client(), needed, progress)
    progress.end()


def stage_names(study: Study) -> list[str]:
    """Of all stages of a study's pipeline, in the order of running them."""
    written = yaml.safe_load((study.folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return [name for name in written if name in STAGES]


def item_names(study: Study, stage: str, wanted: Sequence[str]) -> dict[str, dict[str, str]]:
    """Data set and variant, as the stage needs, by the name that DVC gives the item.

    Raises:
        SettingsError: the study has no such stage, or no item of a wanted name.

    """
    of_study = stage_names(study)
    if stage not in of_study:
        raise unknown_name("stage", stage, of_study, str(study.params_file))
    trained = [name for name in study.variants if name not in study.parameters.committees]
    values = {"dataset": list(study.parameters.datasets), "variant": trained}
    definition: Stage = STAGES[stage]
    combinations = product(*(values[item] for item in definition.items))
    names = {
        f"{stage}@{'-'.join(given)}" if given else stage: dict(
            zip(definition.items, given, strict=True)
        )
        for given in combinations
    }
    chosen: set[str] = set()
    for pattern in wanted:
        whole = f"{stage}@{pattern.removeprefix(f'{stage}@')}"
        found = {name for name in names if fnmatch(name, whole)}
        if not found:
            raise unknown_name("item", whole, names, str(study.params_file))
        chosen |= found
    return {name: given for name, given in names.items() if not wanted or name in chosen}


def _room(study: Study) -> int:
    return processes(study.parameters.training.threads)


@contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """While a file lies in the study's scratch folder by which a worker knows that it sees it.

    Of a new name each time: file systems remember for a while that a file was not there.
    """
    path = scratch(folder) / f"here-{uuid.uuid4().hex}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class _Connection(AbstractContextManager):
    """A client of a running scheduler, or of one started here with workers, once one is asked for.

    Args:
        scheduler: address or scheduler file; None to start one here.
        workers: how many to start here.

    """

    def __init__(self, scheduler: str | None, workers: int):
        self._scheduler, self._workers = scheduler, workers
        self._open = ExitStack()
        self._client: Client | None = None

    def __exit__(self, *given: object) -> None:
        self._open.__exit__(*given)

    def client(self) -> Client:
        """The same at each call."""
        if self._client is None:
            logging.getLogger("distributed").setLevel(
                logging.CRITICAL
            )  # what goes wrong is said here
            self._client = self._connect()
        return self._client

    def _connect(self) -> Client:
        enter = self._open.enter_context
        if self._scheduler is not None:
            return enter(_client(self._scheduler))
        # Items here have the environment that stages have, whose numbers of threads are not Dask's to
        # choose; and nobody else on this machine can send code to the workers.
        enter(dask.config.set({"distributed.nanny.pre-spawn-environ": {}}))
        cluster = LocalCluster(
            n_workers=self._workers, threads_per_worker=1, processes=True, security=True,
            memory_limit=0, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
        )  # fmt: skip
        return enter(Client(enter(cluster)))


def _client(scheduler: str) -> Client:
    try:
        if not scheduler.endswith(".json"):
            return Client(scheduler, timeout=SECONDS_TO_CONNECT)
        until = time.monotonic() + SECONDS_TO_CONNECT
        while not Path(scheduler).exists():  # Dask itself would wait for ever
            if time.monotonic() > until:
                raise FileNotFoundError("no such scheduler file")
            time.sleep(0.1)
        return Client(scheduler_file=scheduler, timeout=SECONDS_TO_CONNECT)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"no scheduler of Dask answers at {scheduler}: {' '.join(str(error).split())}"
        ) from None


def _send(client: Client, needed: Needed, progress: "_Progress") -> None:
    """Send items to workers until each of them has ended, and record them as they come."""
    _refuse_unfit(client, needed)
    if not client.nthreads():
        log.info("the scheduler has no workers yet: waiting for them")
    sent: dict[str, Item] = {}
    tries = dict.fromkeys(progress.waiting, 0)

    def submit(item: Item) -> Any:
        tries[item] += 1
        key = f"{item.name}-{uuid.uuid4().hex}"
        sent[key] = item
        return client.submit(run_item, item, key=key, pure=False)

    queue = as_completed([submit(item) for item in progress.waiting])
    finished: dict[Item, Outcome] = {}
    recorded_at = time.monotonic()
    for batch in queue.batches():
        for future in batch:
            item, outcome = sent.pop(future.key), _outcome(future)
            if outcome.receipt is not None:
                finished[item] = outcome
            elif outcome.failed or tries[item] == MOST_TRIES:
                progress.fail(item, outcome.failed or f"a worker {outcome.unfit}")
            else:
                _retire_unfit(client, needed)
                queue.add(submit(item))
        # DVC reads the whole pipeline each time, on a core that workers have use for.
        if time.monotonic() - recorded_at > SECONDS_BETWEEN_RECORDS or queue.is_empty():
            progress.record({item: found.receipt for item, found in finished.items()}, finished)
            finished, recorded_at = {}, time.monotonic()


def _outcome(future: Any) -> Outcome:
    """What a worker sent back, or what Dask says instead.

    Raises:
        StageFailed: the scheduler died.

    """
    try:
        return future.result()
    except KilledWorker as error:
        return Outcome(
            failed=f"{error.allowed_failures + 1} workers died while they were at it, which want of "
            f"memory may be the reason of; the last was {error.last_worker.address}"
        )
    except (CancelledError, OSError) as error:
        raise StageFailed(
            f"the scheduler of Dask is gone ({type(error).__name__}): start one, and run the same "
            "command again; what has ended is kept"
        ) from None
    except Exception as error:  # the worker could not so much as read what it was sent
        text = " ".join(str(error).split())
        return Outcome(unfit=f"cannot run this library: {type(error).__name__}: {text}")


def _unfit_workers(client: Client, needed: Needed) -> dict[str, str]:
    """Why workers cannot run the study's items, by address."""
    answers: Mapping[str, Any] = client.run(unfit, needed, on_error="return")
    reasons = {}
    for address, answer in answers.items():
        if isinstance(answer, OSError):
            continue  # it has just died
        if isinstance(answer, Exception):
            answer = f"cannot run this library: {type(answer).__name__}: {answer}"
        if answer:
            reasons[address] = answer
    return reasons


def _refuse_unfit(client: Client, needed: Needed) -> None:
    reasons = _unfit_workers(client, needed)
    if reasons:
        raise SettingsError(
            "\n".join(f"worker {address} {reason}" for address, reason in reasons.items())
        )


def _retire_unfit(client: Client, needed: Needed) -> None:
    """Tell workers that joined late, and cannot run the study's items, to leave."""
    if code_of(needed.modules, library_digests()) != needed.code:
        raise StageFailed(
            f"code that the stage {needed.stage} depends on was edited meanwhile: run the same "
            "command again, with workers that are started anew"
        )
    reasons = _unfit_workers(client, needed)
    for address, reason in reasons.items():
        log.warning("worker %s %s; it is retired", address, reason)
    if reasons:
        client.retire_workers(list(reasons))


@dataclass
class _Progress:
    """What has become of the items, told as it happens."""

    records: Records
    items: Sequence[Item]
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.waiting = list(self.items)
        self.bar = tqdm(total=len(self.items), disable=None)

    def record(
        self, receipts: Mapping[Item, Receipt], outcomes: Mapping[Item, Outcome] | None = None
    ) -> None:
        """Record items that ended well, once their files are seen here."""
        if not receipts:
            return
        seen = {item: receipt for item, receipt in receipts.items() if _is_seen(item, receipt)}
        for item in receipts.keys() - seen.keys():
            self.fail(
                item,
                f"its outputs are not seen here as {outcomes[item].where} wrote them: {item.folder} "
                "has to be on a file system that all machines share",
            )
        changed = self.records.commit({item.name: item.depends_on for item in seen})
        for item in seen:
            if item.name in changed:
                self.fail(item, "what it depends on was edited meanwhile: run the command again")
                continue
            outcome = outcomes[item] if outcomes else None
            how = f"{outcome.seconds:.0f} s, {outcome.where}" if outcome else "had ended before"
            self._ended(item, f"{item.name}: {how}")

    def fail(self, item: Item, reason: str) -> None:
        self.failed[item.name] = reason
        self._ended(item, f"error: {item.name}: {reason}")

    def end(self) -> None:
        self.bar.close()
        if self.failed:
            raise StageFailed(
                f"{len(self.failed)} of {len(self.items)} items failed: {', '.join(self.failed)}"
            )

    def _ended(self, item: Item, line: str) -> None:
        self.waiting.remove(item)
        done = len(self.items) - len(self.waiting)
        self.bar.clear()
        log.info("%d of %d: %s", done, len(self.items), line)
        self.bar.update()


def _is_seen(item: Item, receipt: Receipt) -> bool:
    until = time.monotonic() + SECONDS_TO_SEE
    while not receipt.is_seen(item):
        if time.monotonic() > until:
            return False
        time.sleep(1.0)
    return True
