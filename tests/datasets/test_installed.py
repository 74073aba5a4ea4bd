import pytest

from rarenodes.datasets.installed import installed_path


def test_a_file_of_an_installed_package():
    assert installed_path("numpy", "numpy/__init__.py").is_file()


def test_a_package_that_is_not_installed():
    with pytest.raises(
        FileNotFoundError, match="a/b: the package no-such is not installed: pip install no-such"
    ):
        installed_path("no-such", "a/b")


def test_a_release_without_the_file():
    with pytest.raises(FileNotFoundError, match=r"numpy \S+ has no such file; install the release"):
        installed_path("numpy", "numpy/no-such")
