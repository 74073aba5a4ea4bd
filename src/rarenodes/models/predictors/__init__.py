"""The trained part of a model, of every family of variants, and committees of them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.models.predictors.committee import MEMBERS, Committee
from rarenodes.models.predictors.leaves import Leaves
from rarenodes.models.predictors.lookups import HiddenLookup, Lookup
from rarenodes.models.predictors.networks import Networks
from rarenodes.models.predictors.predictor import Predictor
from rarenodes.models.predictors.regressions import Regressions

KINDS = {
    kind.family: kind for kind in (Networks, Regressions, Lookup, HiddenLookup, Leaves, Committee)
}


def files_of(family: str, description: Mapping[str, Any]) -> Iterator[str]:
    """Names of a predictor's files, under its folder.

    Args:
        family: of `KINDS`.
        description: what the predictor said of itself.

    Raises:
        ValueError: an unknown kind.

    """
    if family not in KINDS:
        raise ValueError(f"unknown family {family!r}")
    yield from KINDS[family].files
    for name, member in description.get(MEMBERS, {}).items():
        for file in files_of(member["family"], member["predictor"]):
            yield f"{MEMBERS}/{name}/{file}"


def load_predictor(
    folder: Path, hierarchy: Hierarchy, family: str, description: dict[str, Any], mend: str
) -> Predictor:
    """Read a predictor's files.

    Args:
        folder: of the files.
        hierarchy: the nodes.
        family: of `KINDS`.
        description: what the predictor said of itself.
        mend: what to do where they are damaged, for the message.

    Raises:
        UnreadableFile: a file is damaged.

    """
    if family != Committee.family:
        return KINDS[family].load(folder, hierarchy, description, mend)
    members = {
        name: load_predictor(
            folder / MEMBERS / name, hierarchy, member["family"], member["predictor"], mend
        )
        for name, member in description[MEMBERS].items()
    }
    return Committee.load(folder, hierarchy, description, mend, members)
