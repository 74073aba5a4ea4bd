"""Typed settings, and errors about them that say what, where, expected, and the mend."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError


class Settings(BaseModel):
    """A group of settings: immutable, strictly typed, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SettingsError(ValueError):
    """Settings a person has to mend; the message is one line a fault."""


S = TypeVar("S", bound=Settings)


def read_settings(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """Check values against a group of settings.

    Args:
        kind: the group.
        values: what was given, as read from YAML.
        where: file and key the values came from, for the message.

    Raises:
        SettingsError: one line for each fault: where, what was found, what was expected.

    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_explain(fault, kind, where) for fault in error.errors()]
        raise SettingsError("\n".join(lines)) from None


def unknown_name(what: str, name: str, known: Iterable[str], where: str) -> SettingsError:
    """The error for a name that is none of the known ones, with the nearest of them."""
    known = list(known)
    return SettingsError(f"{where}: unknown {what} {name!r}{_suggestion(name, known)}")


def _suggestion(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(map(repr, known))}"


def _explain(fault: Mapping[str, Any], kind: type[Settings], where: str) -> str:
    path = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        known = _known_keys(kind, fault["loc"][:-1])
        parent = ": ".join([where, *([".".join(path[:-1])] if path[:-1] else [])])
        return f"{parent}: unknown key {path[-1]!r}{_suggestion(path[-1], known)}"
    at = ": ".join([where, *([".".join(path)] if path else [])])
    if fault["type"] == "missing":
        return f"{at}: missing; it is required"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if fault["type"] == "value_error":
        return f"{at}: {message}"
    return f"{at}: expected {message}, found {fault['input']!r}"


def _known_keys(kind: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Field names of the settings group found by following `path` from `kind`."""
    path = list(path)
    while path:
        field = kind.model_fields[path.pop(0)]
        kind = _settings_in(field.annotation)
        if get_origin(field.annotation) in (dict, list):
            path.pop(0)  # the entry's own name or place
    return list(kind.model_fields)


def _settings_in(annotation: Any) -> type[BaseModel]:
    """The settings group in `Group`, `Group | None`, `dict[str, Group]` or `list[Group]`."""
    candidates = [annotation, *get_args(annotation)]
    return next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
