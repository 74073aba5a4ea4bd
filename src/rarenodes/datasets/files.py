"""Reading files so that whatever is wrong with one is said in one line: where, what, the mend."""

import codecs
import json
import re
from pathlib import Path
from typing import Any

_LINE_END = re.compile(r"\r\n|\r|\n")


class FileFault(ValueError):
    """A file whose content cannot be used; the message says where, what, and the mend."""


def read_bytes(path: Path, expected: str) -> bytes:
    """The content of a file.

    Args:
        path: the file.
        expected: what it should be, for the message.

    Raises:
        FileNotFoundError: no such file.
        OSError: it is a folder, or the system does not let it be read.

    """
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path}: found a folder, expected a file: {expected}")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; expected {expected}")
        return path.read_bytes()
    except OSError as error:
        if error.strerror is None:  # one of the two above
            raise
        raise OSError(
            f"{path}: cannot be read ({error.strerror}); expected {expected}: "
            "check the file's permissions and its disk"
        ) from None


def decoded(path: Path, content: bytes) -> str:
    """The text of a file in UTF-8, without its byte order mark.

    Raises:
        FileFault: a byte that is no part of such a text, with its line.

    """
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start
    else:
        at = content.find(0)
        if at < 0:
            return text
    line = len((content[:at] + b".").splitlines())
    raise FileFault(
        f"{path}, line {line}: found the byte 0x{content[at]:02x}, expected text in UTF-8: "
        "unpack the file if it is compressed, or save it as UTF-8"
    )


def lines_of(text: str) -> list[str]:
    """The lines of a text as an editor counts them.

    `str.splitlines` would also break at a form feed or a Unicode separator within a name.
    """
    return _LINE_END.split(text)


def parsed_json(path: Path, text: str) -> Any:
    """The value that a text in JSON stands for.

    Raises:
        FileFault: it is none, with its line, or nested too deeply.

    """
    try:
        return json.loads(text)
    except RecursionError:
        raise FileFault(f"{path}: nested too deeply to be read; expected flat JSON") from None
    except json.JSONDecodeError as error:
        raise FileFault(
            f"{path}, line {error.lineno}: {error.msg}; expected JSON: correct it, or fetch it again"
        ) from None
    except ValueError as error:  # such as a number of more digits than Python reads
        raise FileFault(f"{path}: {error}; expected plain JSON") from None


def is_text(value: Any) -> bool:
    """Whether a value is a string that can be written in UTF-8.

    JSON can write half of a surrogate pair, which no file can hold.
    """
    if not isinstance(value, str):
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def short(text: str) -> str:
    """How a message quotes what was found, at most some 40 characters of it."""
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def counted(count: int, one: str, several: str | None = None) -> str:
    """A number of things in words, as `1 row`, `2 rows`, `1 name stands` or `2 names stand`.

    Args:
        count: how many.
        one: what one of them is called, with its verb where one follows.
        several: what they are called otherwise; by default `one` with an `s`.

    """
    return f"{count} {one if count == 1 else several or one + 's'}"


def brief(message: object, letters: int = 400) -> str:
    """A message of another part of the library or of another library, as one line of bounded length."""
    said = " ".join(str(message).split())
    return said if len(said) <= letters else f"{said[:letters]}…"
