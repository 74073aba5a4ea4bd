"""Finding, verifying and, where need be, downloading the files of public data sets."""

import hashlib
import http.client
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "HMC_DATA_DIR"


class ChecksumError(ValueError):
    """A file whose content is not the known one, or of which none is known."""


@dataclass(frozen=True)
class RawFile:
    """A file of a public data set.

    Attributes:
        path: where it lies in the data set's folder.
        url: where it can be downloaded.
        sha256: its checksum, or None where it is not known.

    """

    path: str
    url: str
    sha256: str | None


def find(file: RawFile, root: Path, accept_unverified: bool = False) -> Path:
    """A verified copy of the file.

    Looked for in the folder named by the environment variable `HMC_DATA_DIR`, then in `root/raw`;
    if in neither, downloaded into `root/raw`.

    Args:
        file: what is wanted.
        root: data folder.
        accept_unverified: whether to accept a file of which no checksum is known.

    Raises:
        FileNotFoundError: `HMC_DATA_DIR` names no folder, or the file is nowhere and cannot be
            downloaded.
        ChecksumError: the file's checksum is not the known one; or none is known, and
            `accept_unverified` is not set.

    """
    if file.sha256 is None and not accept_unverified:
        raise ChecksumError(
            f"{file.path}: no SHA-256 of this file is known, so it cannot be verified: put a copy you "
            f"trust into {root / 'raw' / file.path} or the folder named by {FOLDER_VARIABLE}, and "
            "set the option accept_unverified: true (its SHA-256 is then recorded in the card)"
        )
    for folder in [*_named_folder(), root / "raw"]:
        if (folder / file.path).is_file():
            return _verified(folder / file.path, file)
    return _downloaded(file, root)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _named_folder() -> list[Path]:
    name = os.environ.get(FOLDER_VARIABLE)
    if not name:
        return []
    if not Path(name).is_dir():
        raise FileNotFoundError(
            f"{FOLDER_VARIABLE}: found {name!r}, which is no folder; expected the folder with "
            f"datasets_FUN, datasets_GO and others: correct or unset {FOLDER_VARIABLE}"
        )
    return [Path(name)]


def _verified(path: Path, file: RawFile) -> Path:
    found = sha256(path)
    if file.sha256 not in (None, found):
        raise ChecksumError(
            f"{path}: found SHA-256 {found}, expected {file.sha256}: "
            "the file is damaged or another version; delete it to fetch it again"
        )
    return path


def _downloaded(file: RawFile, root: Path) -> Path:
    target = root / "raw" / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    # Verified under another name, so that a broken download is never taken for the file.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        partial = Path(folder) / target.name
        try:
            fetch(file.url, partial)
        except (OSError, http.client.HTTPException) as error:
            raise FileNotFoundError(_nowhere(file, root, error)) from None
        found = sha256(partial)
        if file.sha256 not in (None, found):
            raise ChecksumError(
                f"{file.url}: found SHA-256 {found}, expected {file.sha256}: the download is "
                f"incomplete or was altered on the way; try again, or put the file into {target}"
            )
        partial.replace(target)
    return target


def fetch(url: str, path: Path) -> None:
    """Download a file.

    Raises:
        OSError: it cannot be reached, or no longer.

    """
    with urllib.request.urlopen(url, timeout=30) as response, path.open("wb") as stream:
        while block := response.read(1 << 20):
            stream.write(block)


def _nowhere(file: RawFile, root: Path, error: Exception) -> str:
    named = os.environ.get(FOLDER_VARIABLE)
    folder = f"{Path(named) / file.path} (no such file)" if named else "not set"
    return (
        f"{file.path} was found in none of three places: "
        f"1. {FOLDER_VARIABLE}: {folder}; 2. {root / 'raw' / file.path} (no such file); "
        f"3. {file.url} ({error}). Set {FOLDER_VARIABLE} to a folder that holds it, or put it into "
        f"{root / 'raw' / file.path}"
    )
