"""Hierarchies in OBO, the flat-file format of biology's ontologies.

Written here rather than taken from `obonet` 1.3, which keeps no line numbers: it stops at a byte
order mark or at stanzas without a blank line between them with a message of several lines, at a
`relationship` of three words with "too many values to unpack" and at a term without `id` with a
`KeyError`; it keeps the last of two terms with one id, makes a node of an empty `is_a`, and lets
parents be obsolete or undefined. Checking all that beside it would take as much code as the reader.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rarenodes.datasets.files import FileFault, brief, lines_of, short

# Terms make the nodes; the others are legal and say nothing about them.
STANZAS = ("Term", "Typedef", "Instance")

_STANZA = re.compile(r"\[([^\]]*)\]")
# A comment starts at an exclamation mark that no backslash escapes; in a name, which may hold one
# ("Yahoo!"), only after a space. A qualifier such as {source="x"} ends the value of an `is_a`.
_COMMENT = re.compile(r"(?<!\\)!.*")
_COMMENT_AFTER_SPACE = re.compile(r"(^|\s)!.*")
_QUALIFIER = re.compile(r"(?<!\\)\{.*")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED_SPACES = {"n": " ", "t": " ", "W": " "}


@dataclass(frozen=True)
class Ontology:
    """The terms in use, and what is above them.

    Attributes:
        edges: (child, parent) of every `is_a`, with the line it stands in.
        names: what every term is called in words; its id where it has no name.

    """

    edges: Mapping[tuple[str, str], int]
    names: Mapping[str, str]


@dataclass
class _Term:
    line: int
    id: str = ""
    name: str = ""
    obsolete: bool = False
    replaced_by: str = ""
    parents: list[tuple[str, int]] = field(default_factory=list)


def parse_obo(path: Path, text: str) -> Ontology:
    r"""Read the `[Term]` stanzas of an OBO file, formats 1.2 and 1.4.

    Terms that are obsolete are left out. Trailing comments (`! …`) and qualifiers (`{…}`) are no
    part of an id; escapes such as `\:` are resolved.

    Args:
        path: the file, for the messages.
        text: its content.

    Raises:
        FileFault: with the line: a line that is no `tag: value`; an unknown kind of stanza; a term
            without id, or with the id of another; an empty `is_a`; a parent that is obsolete, or no
            term of the file.

    """
    terms: dict[str, _Term] = {}
    for term in _terms(path, text):
        if not term.id:
            raise FileFault(
                f"{path}, line {term.line}: a [Term] has no line `id: ...`; expected one in each"
            )
        if term.id in terms:
            raise FileFault(
                f"{path}, line {term.line}: found the id {short(term.id)} again, which the term of "
                f"line {terms[term.id].line} has; expected an id for each: merge or rename one"
            )
        terms[term.id] = term
    edges: dict[tuple[str, str], int] = {}
    for term in terms.values():
        if not term.obsolete:
            for parent, line in term.parents:
                _check_parent(path, line, parent, terms)
                _check_new(path, line, (term.id, parent), edges)
                edges[term.id, parent] = line
    if not any(not term.obsolete for term in terms.values()):
        raise FileFault(f"{path}: found no [Term] in use, expected at least one")
    names = {t.id: t.name or t.id for t in terms.values() if not t.obsolete}
    return Ontology(edges, names)


def _terms(path: Path, text: str) -> Iterator[_Term]:
    kind, term = "header", None
    for number, line in enumerate(lines_of(text), start=1):
        line = line.strip()
        if not line or line.startswith("!"):
            continue
        if line.startswith("["):
            if term is not None:
                yield term
            kind = _kind(path, number, line)
            term = _Term(number) if kind == "Term" else None
            continue
        tag, colon, value = line.partition(":")
        if not colon:
            raise FileFault(
                f"{path}, line {number}: found {short(line)}, expected `tag: value` or [Term]: "
                "correct or remove the line"
            )
        if term is not None:
            _take(path, number, term, tag.strip(), value.strip())
    if term is not None:
        yield term


def _kind(path: Path, number: int, line: str) -> str:
    match = _STANZA.match(line)
    kind = match[1].strip() if match else ""
    if kind not in STANZAS:
        raise FileFault(
            f"{path}, line {number}: found {short(line)}, expected "
            f"{', '.join(f'[{known}]' for known in STANZAS)}: correct it"
        )
    return kind


def _take(path: Path, number: int, term: _Term, tag: str, value: str) -> None:
    """Add what a line says to a term."""
    if tag == "id":
        if term.id:
            raise FileFault(
                f"{path}, line {number}: found a second id {short(value)} in the term "
                f"{short(term.id)}, expected one: start a new [Term]"
            )
        term.id = _id(path, number, tag, value)
    elif tag == "is_a":
        term.parents.append((_id(path, number, tag, value), number))
    elif tag == "name":
        term.name = _unescaped(_COMMENT_AFTER_SPACE.sub("", value)).strip()
    elif tag == "replaced_by":
        term.replaced_by = _unescaped(_COMMENT.sub("", value)).strip()
    elif tag == "is_obsolete":
        said = _QUALIFIER.sub("", _COMMENT.sub("", value)).strip().lower()
        if said not in ("true", "false"):
            raise FileFault(
                f"{path}, line {number}: found `is_obsolete: {brief(said, 40)}`, expected true or false"
            )
        term.obsolete = said == "true"


def _id(path: Path, number: int, tag: str, value: str) -> str:
    plain = _QUALIFIER.sub("", _COMMENT.sub("", value)).split()
    if len(plain) != 1:
        found = f"{len(plain)} words, {short(value)}" if plain else "nothing"
        raise FileFault(
            f"{path}, line {number}: found {found} after `{tag}:`, expected the id of one term: "
            f"add it, or remove the line; a comment starts with !"
        )
    return _unescaped(plain[0])


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPED_SPACES.get(match[1], match[1]), text)


def _check_parent(path: Path, line: int, parent: str, terms: Mapping[str, _Term]) -> None:
    if parent not in terms:
        near = difflib.get_close_matches(parent, list(terms)[:5000], n=1, cutoff=0.6)
        mend = f"did you mean {near[0]!r}?" if near else "add the term, or remove the line"
        raise FileFault(
            f"{path}, line {line}: `is_a` names {short(parent)}, which is no [Term] of this file: {mend}"
        )
    if terms[parent].obsolete:
        instead = terms[parent].replaced_by
        mend = (
            f"name {short(instead)}, which replaces it" if instead else "name another, or remove it"
        )
        raise FileFault(
            f"{path}, line {line}: `is_a` names {short(parent)}, which line {terms[parent].line} "
            f"makes obsolete; expected a term in use: {mend}"
        )


def _check_new(
    path: Path, line: int, edge: tuple[str, str], edges: Mapping[tuple[str, str], int]
) -> None:
    if edge[0] == edge[1]:
        raise FileFault(
            f"{path}, line {line}: found {short(edge[0])} as its own parent, expected another term: "
            "correct or remove the line"
        )
    if edge in edges:
        raise FileFault(
            f"{path}, line {line}: found {short(edge[0])} under {short(edge[1])} again, as in line "
            f"{edges[edge]}; expected each edge once: remove one"
        )
