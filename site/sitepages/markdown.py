"""Sections, links and tables of Markdown files; what stands in code is left alone."""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

_FENCE = re.compile(r"^(```|~~~)")
# Code is found beside links, so that a link may have code for its words.
_LINK = re.compile(
    r"^(?P<fence>```|~~~).*?^(?P=fence)[^\n]*$"
    r"|(?P<image>!?)\[(?P<text>(?:`[^`\n]*`|[^\[\]`])*)\]\((?P<target>[^()\s]+)\)"
    r"|`[^`\n]+`",
    re.MULTILINE | re.DOTALL,
)


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Parts of a text, each from a heading of the second level to the next, as (heading, body).

    What stands before the first such heading comes first, with an empty heading.
    """
    heading, body, fenced = "", [], False
    for line in text.splitlines(keepends=True):
        fenced ^= bool(_FENCE.match(line))
        if line.startswith("## ") and not fenced:
            yield heading, "".join(body)
            heading, body = line.removeprefix("## ").strip(), []
        else:
            body.append(line)
    yield heading, "".join(body)


def raised(body: str) -> str:
    """A section's body with its headings one level higher, for a page of its own."""
    lines, fenced = [], False
    for line in body.splitlines(keepends=True):
        fenced ^= bool(_FENCE.match(line))
        lines.append(line[1:] if line.startswith("###") and not fenced else line)
    return "".join(lines)


def slug(heading: str) -> str:
    """The name of a heading's page: its words in lower case, joined by hyphens."""
    return "-".join(re.findall(r"\w+", heading.lower()))


def relinked(text: str, renew: Callable[[str], str | None]) -> str:
    """A text whose links within the repository point to what `renew` says.

    Args:
        text: Markdown.
        renew: from a link's target to its new target, or None where the words stay without a link.
            It is asked for links to files only, neither for addresses nor for places on the page.

    """

    def link(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or re.match(r"[a-z]+:|#", target):
            return match[0]
        new = renew(target)
        return match["text"] if new is None else f"{match['image']}[{match['text']}]({new})"

    return _LINK.sub(link, text)


def links(text: str) -> list[str]:
    """Targets of a text's links to files."""
    found: list[str] = []

    def note(target: str) -> str:
        found.append(target)
        return target

    relinked(text, note)
    return found


def data_rows(table: Path, limit: int) -> int:
    """Rows of a CSV file, counted to one more than `limit`."""
    with table.open(encoding="utf-8") as lines:
        return sum(1 for _ in islice(lines, 1, limit + 2))


def fenced(text: str, language: str) -> str:
    """A text as a block of code, whatever fences it holds."""
    longest = max(map(len, re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"
