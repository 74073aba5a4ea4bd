"""Which variants of a study differ by one switch, and what the switch is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Any, Literal, get_args

import pandas as pd

from rarenodes.settings import SettingsError
from rarenodes.study.params import NO_PART_OF_A_RUN, AuditSettings, Study

# What readers call a setting, in the order they read them; any other goes by its own name.
WORDS: Mapping[str, str] = {
    "training.members": "ensemble",
    "weights": "weights",
    "weights.mode": "kind of weights",
    "weights.schedule": "schedule",
    "mixture": "mixture",
    "focal": "focal term",
    "focal.uncertainty": "kind of uncertainty",
    "weights.orientation": "orientation",
    "weights.counts": "counts",
    "reduction": "reduction",
    "resampling": "oversampling",
    "resampling.method": "kind of oversampling",
    "training.fit_on": "training data",
    "weights.counts_from": "source of counts",
    "training.batch_size": "hyperparameters",
    "training.learning_rate": "hyperparameters",
    "training.epochs": "hyperparameters",
}
# A method may have them, so two variants that differ in them are trained alike all the same.
MEMBERS = ("training.members", "training.ensemble")

# A step of the way from the baseline; a step back; the same switch between other variants; or a
# method as a whole, several switches at once.
Kind = Literal["there", "back", "elsewhere", "whole"]
Differing = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Pair:
    """Two variants, and the settings in which they differ.

    Attributes:
        kind: where the pair comes from, see `switch_pairs`.
        off: the variant without the switch.
        on: the variant with it.
        settings: of each setting that differs, the value in `off` and the one in `on`.

    """

    kind: Kind
    off: str
    on: str
    settings: Differing

    @property
    def switches(self) -> tuple[str, ...]:
        """What differs, in words."""
        known = [word for key, word in WORDS.items() if key in self.settings]
        others = [key for key in self.settings if key not in WORDS]
        return tuple(dict.fromkeys(known + others))

    @property
    def switch(self) -> str:
        """All that differs, in one phrase."""
        return " + ".join(self.switches)

    @property
    def trained_alike(self) -> bool:
        """Whether both have the same examples and the same budget, members apart."""
        return not any(key.startswith("training.") and key not in MEMBERS for key in self.settings)

    @property
    def change(self) -> str:
        """Every setting with its two values, for readers."""
        return "; ".join(
            f"{key}: {_shown(off)} → {_shown(on)}" for key, (off, on) in self.settings.items()
        )


def audit_settings(study: Study) -> AuditSettings:
    """What an audit compares; a `SettingsError` where the study does not say."""
    if study.parameters.audit is None:
        raise SettingsError(
            f"{study.params_file}: audit: missing; give `there`, the variants in order, each with one "
            "switch more than the one before it"
        )
    return study.parameters.audit


def audited_variants(study: Study) -> list[str]:
    """The variants on the way there, back and beside it, each once, in this order."""
    settings = audit_settings(study)
    names = [*settings.there, *settings.back, *settings.back.values()]
    return list(dict.fromkeys([*names, *(name for way in settings.beside for name in way)]))


def switch_pairs(study: Study) -> list[Pair]:
    """The pairs of variants whose difference is the effect of a switch, or of several at once.

    * `there`: the steps from the baseline.
    * `back`: the steps back, where one switch is undone.
    * `elsewhere`: the steps of the ways beside, and all other pairs of the same variants that differ
      in the settings of one step, or some of them, by the same values: the same switch on another
      background.
    * `whole`: every variant on the way there with the baseline, the ends of each way beside, and
      steps back or beside that are several switches at once.

    The effect of a pair is always that of its switches being on. No pair occurs twice. Which pairs
    there are follows from `params.yaml` alone, never from results.

    Raises:
        SettingsError: the study says nothing of an audit, or a pair differs in nothing.

    """
    settings = audit_settings(study)
    variants = audited_variants(study)
    values = {variant: _values(study, variant) for variant in variants}
    found: dict[tuple[str, str], Pair] = {}

    def add(kind: Kind, off: str, on: str) -> None:
        if (off, on) in found or (on, off) in found:
            return
        pair = Pair(kind, off, on, _differing(values[off], values[on]))
        if not pair.settings:
            raise SettingsError(
                f"{study.params_file}: audit: {off!r} and {on!r} differ in no setting: one of them "
                "must have a switch more"
            )
        several = kind in ("back", "elsewhere") and len(pair.switches) > 1
        found[off, on] = replace(pair, kind="whole") if several else pair

    for off, on in zip(settings.there, settings.there[1:], strict=False):
        add("there", off, on)
    for off, on in settings.back.items():
        add("back", off, on)
    for way in settings.beside:
        for off, on in pairwise(way):
            add("elsewhere", off, on)
        add("whole", way[0], way[-1])
    steps = [pair for pair in found.values() if pair.kind == "there"]
    for off, on in permutations(variants, 2):
        differing = _differing(values[off], values[on]).items()
        if differing and any(differing <= step.settings.items() for step in steps):
            add("elsewhere", off, on)
    for variant in settings.there[1:]:
        add("whole", settings.there[0], variant)
    start = settings.there[0]
    order = sorted(found.values(), key=lambda pair: pair.off != start and pair.kind == "whole")
    return sorted(order, key=lambda pair: get_args(Kind).index(pair.kind))


def main_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """The whole way; then for each partner the furthest method on the way that is trained alike.

    Args:
        pairs: from `switch_pairs`.

    """
    baseline, there = pairs[0].off, [pair.on for pair in pairs if pair.kind == "there"]
    methods = [
        pair for pair in pairs if pair.on in there and (pair.kind == "whole" or pair == pairs[0])
    ]
    methods = sorted(methods, key=lambda pair: there.index(pair.on))
    whole = next(pair for pair in methods if (pair.off, pair.on) == (baseline, there[-1]))
    furthest = {pair.off: pair for pair in methods if pair.trained_alike}
    return [whole, *(pair for pair in furthest.values() if pair != whole)]


def switch_table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """A row per pair: what differs, by which values, and whether it is one of `main_pairs`."""
    main = main_pairs(pairs)
    return pd.DataFrame(
        {
            "kind": [pair.kind for pair in pairs],
            "switch": [pair.switch for pair in pairs],
            "off": [pair.off for pair in pairs],
            "on": [pair.on for pair in pairs],
            "trained_alike": [pair.trained_alike for pair in pairs],
            "main": [pair in main for pair in pairs],
            "settings": [pair.change for pair in pairs],
        }
    )


def _values(study: Study, variant: str) -> dict[str, Any]:
    """All that the runs of a variant depend on; training settings by data set."""
    values = study.variant(variant).model_dump(exclude={"about", "source", "training"})
    by_dataset = {
        name: study.training(name, variant).model_dump(exclude=NO_PART_OF_A_RUN)
        for name in study.parameters.datasets
    }
    return {**values, "training": by_dataset}


def _differing(off: Mapping[str, Any], on: Mapping[str, Any]) -> Differing:
    """Settings by name with their two values; a group that one of the two lacks counts as one."""
    found = _unequal({**off, "training": None}, {**on, "training": None})
    for name in off["training"]:
        found |= _unequal(off["training"][name], on["training"][name], "training.")
    return found


def _unequal(off: Mapping[str, Any], on: Mapping[str, Any], prefix: str = "") -> Differing:
    found: Differing = {}
    for key, value in off.items():
        if isinstance(value, dict) and isinstance(on[key], dict) and key != "options":
            found |= _unequal(value, on[key], f"{prefix}{key}.")
        elif value != on[key]:
            found[f"{prefix}{key}"] = (value, on[key])
    return found


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(_shown(part) for part in value.values() if part is not None)
    if isinstance(value, list):
        return " + ".join(map(str, value))
    return "none" if value is None else str(value)
