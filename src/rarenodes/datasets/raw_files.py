"""Finding, verifying and, where need be, downloading the files of public data sets.

Written here rather than with `pooch` 1.9, which would replace the dozen lines of `fetch` and of
the download under another name, and cost as many: it knows no git blob ids; it fetches a local file
anew whose checksum is wrong, where that may be the user's own; it names neither the places that were
looked in nor the mend; and its network errors are those of `requests`, one more dependency.
"""

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
        git_blob: its id in a git repository, the SHA-1 of its length and content, or None where it
            is not known. It verifies a file whose SHA-256 is not known: against damage and mistaken
            versions for certain, against forgery as well as git itself.

    """

    path: str
    url: str
    sha256: str | None
    git_blob: str | None = None

    @property
    def verifiable(self) -> bool:
        """Whether any checksum is known."""
        return self.sha256 is not None or self.git_blob is not None


def refuse_unverifiable(file: RawFile, root: Path, accept_unverified: bool) -> None:
    """Stop before anything is fetched, where a file of no known checksum is not to be accepted.

    Raises:
        ChecksumError: no checksum of the file is known, and `accept_unverified` is not set.

    """
    if not file.verifiable and not accept_unverified:
        raise ChecksumError(
            f"{file.path}: no checksum of this file is known, so it cannot be verified: put a copy you "
            f"trust into {root / 'raw' / file.path} or the folder named by {FOLDER_VARIABLE}, and "
            "set the option accept_unverified: true (its SHA-256 is then recorded in the card)"
        )


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
        OSError: the file cannot be read, or the download not be written.
        ChecksumError: the file's checksum is not the known one; or none is known, and
            `accept_unverified` is not set.

    """
    refuse_unverifiable(file, root, accept_unverified)
    for folder in [*_named_folder(), root / "raw"]:
        if (folder / file.path).is_file():
            path = folder / file.path
            if differs := _difference(path, file):
                raise ChecksumError(
                    f"{path}: {differs}: the file is damaged or another version; "
                    "delete it to fetch it again"
                )
            return path
    return _downloaded(file, root)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def git_blob(path: Path) -> str:
    """The id that git gives to a file's content, in hexadecimal: `git hash-object FILE`."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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


def _difference(path: Path, file: RawFile) -> str:
    """How a file differs from the known one; empty if it does not, or if none is known."""
    try:
        if file.sha256 is not None:
            name, found, expected = "SHA-256", sha256(path), file.sha256
        elif file.git_blob is not None:
            name, found, expected = "git blob id", git_blob(path), file.git_blob
        else:
            return ""
    except OSError as error:
        raise OSError(
            f"{path}: cannot be read ({error.strerror}); expected a file of the data set: check "
            "its permissions"
        ) from None
    return "" if found == expected else f"found {name} {found}, expected {expected}"


def _downloaded(file: RawFile, root: Path) -> Path:
    target = root / "raw" / file.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{target.parent}: cannot be made ({error.strerror}), so {file.path} cannot be "
            f"downloaded: make {root} writable, or set {FOLDER_VARIABLE} to a folder that holds it"
        ) from None
    # Verified under another name, so that a broken download is never taken for the file.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        partial = Path(folder) / target.name
        try:
            fetch(file.url, partial)
        except (OSError, http.client.HTTPException) as error:
            raise FileNotFoundError(_nowhere(file, root, error)) from None
        if differs := _difference(partial, file):
            raise ChecksumError(
                f"{file.url}: {differs}: the download is incomplete or was altered on the way; "
                f"try again, or put the file into {target}"
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
