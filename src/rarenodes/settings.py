"""Typed settings, and errors about them that say what, where, expected, and the mend."""

import difflib
import reprlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

# What is shown of a value that was found: enough to know it by.
_SHOWN = reprlib.Repr()
_SHOWN.maxstring, _SHOWN.maxother, _SHOWN.maxlong, _SHOWN.maxlevel = 60, 60, 40, 3
# Names that are listed or looked for a near one among, and the longest name to look for.
MOST_NAMES, LONGEST_NAME = 1000, 100
# Bytes of a file's name between slashes, and in all, with room for the folders before it.
LONGEST_PART, LONGEST_PATH = 255, 1024
# Kinds of characters that no such name has: controls, halves of characters, ends of lines.
_UNWRITTEN = {"Cc", "Cs", "Zl", "Zp"}


class Settings(BaseModel):
    """A group of settings: immutable, strictly typed, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _file_name(name: str) -> str:
    if any(unicodedata.category(character) in _UNWRITTEN for character in name):
        raise ValueError(f"expected the name of a file, on one line, found {shown(name)}")
    longest = max((len(part.encode()) for part in PurePath(name).parts), default=0)
    if longest > LONGEST_PART or len(name.encode()) > LONGEST_PATH:
        raise ValueError(
            f"expected the name of a file, of at most {LONGEST_PATH} bytes and {LONGEST_PART} between "
            f"slashes, found {shown(name)}"
        )
    return name


# A file or folder that settings name: one that a system can have, and a message show on one line.
FileName = Annotated[str, AfterValidator(_file_name)]


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


def shown(value: Any) -> str:
    """A value as it is written in a message: on one line, and shortened where it is long."""
    text = _SHOWN.repr(value)
    return text if text.isprintable() else repr(text)


def unknown_name(what: str, name: str, known: Iterable[str], where: str) -> SettingsError:
    """The error for a name that is none of the known ones, with the nearest of them."""
    known = list(known)
    return SettingsError(f"{where}: unknown {what} {shown(name)}{_suggestion(name, known)}")


def _suggestion(name: str, known: list[str]) -> str:
    if len(name) <= LONGEST_NAME:  # comparing long texts takes time, and they are no slip of a key
        near = difflib.get_close_matches(name, known[:MOST_NAMES], n=1, cutoff=0.5)
        if near:
            return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(map(repr, known[:MOST_NAMES]))}"


def _explain(fault: Mapping[str, Any], kind: type[Settings], where: str) -> str:
    path = [_key(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        known = _known_keys(kind, fault["loc"][:-1])
        parent = ": ".join([where, *([".".join(path[:-1])] if path[:-1] else [])])
        key = str(fault["loc"][-1])
        return f"{parent}: unknown key {shown(key)}{_suggestion(key, known)}"
    at = ": ".join([where, *([".".join(path)] if path else [])])
    if fault["type"] == "missing":
        return f"{at}: missing; it is required"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    message = " ".join(message.split())
    if fault["type"] == "value_error":
        return f"{at}: {message}"
    return f"{at}: expected {message}, found {shown(fault['input'])}{_hint(fault)}"


def _key(part: str | int) -> str:
    """A part of a setting's path; quoted where it is no plain name."""
    text = str(part)
    return text if text.isprintable() and len(text) <= LONGEST_NAME else shown(text)


def _hint(fault: Mapping[str, Any]) -> str:
    """YAML takes `1e-3` for a text, which looks like a number to everybody else."""
    found = fault["input"]
    if fault["type"] not in ("float_type", "int_type") or not isinstance(found, str):
        return ""
    try:
        float(found)
    except ValueError:
        return ""
    return ", a text: write numbers without quotes, and powers of ten like 1.0e-3"


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
