"""Data that came with an installed package."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def installed_path(package: str, path: str) -> Path:
    """File or folder of an installed package, found without importing the package.

    Args:
        package: name on PyPI.
        path: relative to where packages are installed, with forward slashes.

    Raises:
        FileNotFoundError: the package is not installed, or its release has no such file.

    """
    try:
        installed = distribution(package)
    except PackageNotFoundError:
        raise FileNotFoundError(
            f"{path}: the package {package} is not installed: pip install {package}"
        ) from None
    found = Path(str(installed.locate_file(path)))
    if not found.exists():
        raise FileNotFoundError(
            f"{found}: {package} {installed.version} has no such file; "
            "install the release that requirements.lock names"
        )
    return found
