"""The stage `tune`: the declared search for one variant on one data set."""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from rarenodes.datasets.dataset import Dataset
from rarenodes.folders import read_json, write_whole
from rarenodes.settings import SettingsError
from rarenodes.study.params import NO_PART_OF_A_LOSS, NO_PART_OF_A_RUN, PACKAGES, Study
from rarenodes.training.checkpoints import CODE, source_digest
from rarenodes.training.loop import Streams
from rarenodes.training.tuning import SCORES, SETTINGS, Point, Search, Validation, search_point

log = logging.getLogger(__name__)

SEARCH = "search.csv"
# What a point of a search depends on, below `rarenodes/`.
_DIGEST = source_digest(Path(__file__).parents[1], (*CODE, "scores", "stages/tune.py"))


def tune(study: Study, name: str, variant: str, folder: Path) -> pd.DataFrame:
    """Make the study's search for a variant on a data set; `search.csv` goes to `folder`.

    A finished point is kept in `scratch/searches` under a key of all it depends on, so that an
    interrupted search goes on, and a grid that is extended is trained at its new points alone. Wall
    times go to `scratch/search_log.csv`, which is no result.

    Returns:
        A row per point and number of epochs: `dataset`, `variant`, the settings that are searched
        (missing where they are another family's) and `rarenodes.training.tuning.SCORES`.

    Raises:
        SettingsError: the study declares no search, or the variant has nothing to search for.

    """
    search, settings = study.parameters.tuning, study.variant(variant)
    if search is None:
        raise SettingsError(
            f"{study.params_file}: tuning: missing; searches are declared in studies/tuning: run "
            "this command there, or with --params studies/tuning/params.yaml"
        )
    try:
        points = search.first_points(settings.family)
    except ValueError as error:
        raise SettingsError(f"{study.params_file}: variants: {variant!r}: {error}") from None
    training = study.training(name, variant)
    torch.set_num_threads(training.threads)
    dataset = Dataset.load(study.prepared(name))
    validation = Validation.of(dataset, study.parameters.evaluation.rarity_counted_in)
    streams = Streams(study.parameters.seed, name, variant, search.run)
    checksum = dataset.checksum()

    def tried(point: Point, epochs: Sequence[int]) -> list[dict[str, float | int]]:
        kept = _kept_point(study, checksum, name, variant, point, epochs)
        if not kept.exists():
            started = time.monotonic()
            found = search_point(settings, dataset, training, point, epochs, streams, validation)
            write_whole(kept, json.dumps(found))
            _note_wall_time(study, name, variant, point, time.monotonic() - started)
        log.info("%s %s: tried %s", name, variant, _shown(point))
        return read_json(kept, f"remove {kept.name}, and the point is tried again")

    epochs, more = search.network.epochs, search.more_epochs
    rows = [row for point in points for row in tried(point, epochs)]
    further = search.further_points(settings.family, pd.DataFrame(rows))
    rows += [row for point in further for row in tried(point, epochs)]
    longer = search.longer_points(settings.family, pd.DataFrame(rows))
    rows += [row for point in longer for row in tried(point, more)]
    table = pd.DataFrame(rows).reindex(columns=[*SETTINGS, *SCORES])
    table.insert(0, "dataset", name)
    table.insert(1, "variant", variant)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / SEARCH, index=False)
    return table


def _kept_point(
    study: Study, checksum: str, name: str, variant: str, point: Point, epochs: Sequence[int]
) -> Path:
    """Scratch file of a finished point, keyed by all that it depends on."""
    search: Search = study.parameters.tuning
    family = study.variant(variant).family
    spent = study.training(name, variant).model_dump(exclude=NO_PART_OF_A_RUN)
    parts = {
        "code": _DIGEST,
        "versions": [version(package) for package in PACKAGES],
        "data": checksum,
        "variant": study.variant(variant).model_dump(exclude=NO_PART_OF_A_LOSS),
        "training": spent if family == "network" else None,
        "epochs": list(epochs) if family == "network" else None,
        "rarity": study.parameters.evaluation.rarity_counted_in,
        "point": dict(point),
        "root seed": study.parameters.seed,
        "run": [name, variant, search.run],
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return study.folder / "scratch" / "searches" / f"{key}.json"


def _shown(point: Point) -> str:
    return ", ".join(f"{setting} {value:g}" for setting, value in point.items())


def _note_wall_time(study: Study, name: str, variant: str, point: Point, seconds: float) -> None:
    path = study.folder / "scratch" / "search_log.csv"
    if not path.exists():
        path.write_text("dataset,variant,point,seconds\n")
    with path.open("a") as lines:
        lines.write(f'{name},{variant},"{_shown(point)}",{seconds:.2f}\n')
