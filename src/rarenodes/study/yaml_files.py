"""Reading YAML that people write: plain values only, and every fault named with its line."""

import stat
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from rarenodes.datasets.files import is_text
from rarenodes.settings import SettingsError, shown

# Far beyond any study, far below what takes seconds or gigabytes.
MOST_BYTES, MOST_VALUES, MOST_LEVELS = 1 << 18, 10_000, 32
LARGEST_INTEGER = 2**63 - 1

_PREFIX = "tag:yaml.org,2002:"
_SCALARS = {f"{_PREFIX}{name}" for name in ("null", "bool", "int", "float", "str")}
_COLLECTIONS = {MappingNode: f"{_PREFIX}map", SequenceNode: f"{_PREFIX}seq"}


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Keys are texts, values are texts, numbers, booleans, nothing, lists and mappings. Anchors,
    aliases and `<<` may be used as long as what they stand for stays small.

    Args:
        path: a regular file of at most 256 KiB.

    Raises:
        SettingsError: one line: the file is missing, cannot be read or is too large, is no YAML or
            no mapping, gives a key twice, nests too deeply, stands for too many values through its
            aliases, or holds a tag, a key or a number that settings cannot have.

    """
    try:
        return _Reader(path).mapping()
    except _TooMuch as error:
        raise SettingsError(f"{path}: {_line(error.problem_mark)}{error.problem}") from None
    except yaml.MarkedYAMLError as error:
        what = " ".join(str(error.problem or error.context or "unreadable").split())
        mark = error.problem_mark or error.context_mark
        raise SettingsError(f"{path}: {_line(mark)}not valid YAML: {what}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


class _TooMuch(yaml.MarkedYAMLError):
    """More levels of nesting, or more values, than settings have."""


class _Loader(yaml.SafeLoader):
    """Refuses deep nesting before it recurses into it, and many values while it counts them."""

    depth = values = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.depth += 1
        if self.depth > MOST_LEVELS:
            self._refuse(f"{MOST_LEVELS} levels of nesting")
        self.values += 1
        if self.values > MOST_VALUES:
            self._refuse(f"{MOST_VALUES} values")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refuse(self, most: str) -> None:
        raise _TooMuch(
            problem=f"expected at most {most}, found more",
            problem_mark=self.peek_event().start_mark,
        )


class _Reader:
    """One file: its text, then its tree of nodes, then its values, each checked before the next."""

    def __init__(self, path: Path):
        self.path = path

    def mapping(self) -> dict[str, Any]:
        loader = _Loader(self._text())
        try:
            root = loader.get_single_node()
            if not isinstance(root, MappingNode):
                found = "nothing" if root is None else _kind(root)
                raise SettingsError(f"{self.path}: expected a mapping of settings, found {found}")
            self._check(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()

    def _text(self) -> str:
        path = self.path
        try:
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):
                raise SettingsError(f"{path}: expected a YAML file, found no regular file")
            if about.st_size > MOST_BYTES:
                raise SettingsError(
                    f"{path}: expected at most {MOST_BYTES} bytes of YAML, found {about.st_size}"
                )
            return path.read_text(encoding="utf-8-sig")
        except SettingsError:
            raise
        except FileNotFoundError:
            raise SettingsError(f"{path}: no such file; run from a study's folder") from None
        except UnicodeDecodeError as error:
            raise SettingsError(
                f"{path}: not valid YAML: byte {error.start + 1} is no UTF-8; save it as UTF-8"
            ) from None
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise SettingsError(f"{shown(str(path))}: no name of a file: {error}") from None

    def _check(self, root: Node) -> None:
        """Every node once, and how many values the tree has when aliases are written out."""
        sizes: dict[int, int] = {}
        open_nodes: set[int] = set()

        def size(node: Node, path: str) -> int:
            if id(node) in open_nodes:
                raise self._fault(node, "an alias stands for something that contains it", path)
            if id(node) not in sizes:
                open_nodes.add(id(node))
                self._check_node(node, path)
                sizes[id(node)] = 1 + sum(size(n, p) for n, p in _children(node, path))
                open_nodes.remove(id(node))
            if sizes[id(node)] > MOST_VALUES:
                raise self._fault(
                    node,
                    f"expected at most {MOST_VALUES} values, found {sizes[id(node)]:.2g} when "
                    "aliases are written out",
                    path,
                )
            return sizes[id(node)]

        size(root, "")

    def _check_node(self, node: Node, path: str) -> None:
        if isinstance(node, ScalarNode):
            self._check_scalar(node, path)
            return
        if node.tag != _COLLECTIONS[type(node)]:
            raise self._fault(node, f"unknown tag {shown(_tag(node))}; remove it", path)
        if isinstance(node, MappingNode):
            self._check_keys(node, path)

    def _check_keys(self, node: MappingNode, path: str) -> None:
        lines: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == f"{_PREFIX}merge":
                parts = value.value if isinstance(value, SequenceNode) else [value]
                if not all(isinstance(part, MappingNode) for part in parts):
                    raise self._fault(key, "`<<` takes mappings", path)
                continue
            if not isinstance(key, ScalarNode):
                raise self._fault(key, f"expected a name as key, found {_kind(key)}", path)
            if key.tag != f"{_PREFIX}str":
                raise self._fault(
                    key, f"expected a name as key, found {shown(key.value)}; put it in quotes", path
                )
            if key.value in lines:
                raise SettingsError(
                    f"{self.path}: {_at(path)}key {shown(key.value)} stands in line "
                    f"{lines[key.value]} and again in line {key.start_mark.line + 1}; remove one"
                )
            lines[key.value] = key.start_mark.line + 1

    def _check_scalar(self, node: ScalarNode, path: str) -> None:
        if node.tag not in _SCALARS:
            if (
                node.tag.startswith(_PREFIX)
                and node.style is None
                and not node.value.startswith("!")
            ):
                what = f"{shown(node.value)} is read as {_tag(node)}; put it in quotes"
            else:
                what = f"unknown tag {shown(_tag(node))}; remove it"
            raise self._fault(node, what, path)
        if not is_text(node.value):
            raise self._fault(node, f"{shown(node.value)} holds half a character; correct it", path)
        value = _value(node)
        if value is None:
            raise self._fault(node, f"expected {_tag(node)}, found {shown(node.value)}", path)
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise self._fault(
                node, f"expected an integer of at most 64 bits, found {shown(node.value)}", path
            )

    def _fault(self, at: Any, what: str, path: str = "") -> SettingsError:
        return SettingsError(f"{self.path}: {_at(path)}{_line(at.start_mark)}{what}")


def _value(node: ScalarNode) -> Hashable:
    """What a scalar stands for, or None where its tag and its text do not fit together."""
    if node.tag == f"{_PREFIX}null":
        return ""  # whatever is written there, it is nothing
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (ValueError, KeyError, IndexError, AttributeError, OverflowError, yaml.YAMLError):
        return None


def _children(node: Node, path: str) -> Iterator[tuple[Node, str]]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.tag == f"{_PREFIX}merge":
                yield value, path
                continue
            yield key, path
            name = key.value if key.value.isprintable() else shown(key.value)
            yield value, f"{path}.{name}" if path else name
    elif isinstance(node, SequenceNode):
        for place, value in enumerate(node.value):
            yield value, f"{path}.{place}" if path else str(place)


def _kind(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, SequenceNode) else f"the text {shown(node.value)}"


def _tag(node: Node) -> str:
    return node.tag.removeprefix(_PREFIX)


def _line(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f"line {mark.line + 1}: "


def _at(path: str) -> str:
    return f"{path}: " if path else ""
