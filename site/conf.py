"""How Sphinx makes web pages of the sources that `sitepages` puts together; nothing is fetched."""

import gc
import pkgutil
import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))
sys.path.insert(0, str(REPOSITORY / "site"))

from sitepages.interface import PACKAGES

import rarenodes

# Pages hold millions of objects to the end of the build; looking for ones to free takes over half of it.
gc.disable()

# All at once and first: autodoc rewrites annotations of a class that it describes, on which pydantic
# then fails for classes that are derived from it later. A module that cannot be imported ends the build.
for _package in PACKAGES:
    for _module in pkgutil.walk_packages(
        [f"{rarenodes.__path__[0]}/{_package}"], f"rarenodes.{_package}."
    ):
        import_module(_module.name)

_PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

project = "rare-nodes"
author = "The rare-nodes developers"
project_copyright = author
release = _PROJECT["version"]
html_title = project

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]

# Notebooks are shown as they were executed.
nb_execution_mode = "off"
nb_render_markdown_format = "gfm"
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
nb_merge_streams = True
myst_heading_anchors = 4

# Docstrings are Markdown in what they quote, Google's in their sections.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autosummary_generate = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False
highlight_language = "none"
toc_object_entries = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_js_files = ["sort.js", "search.js", "figures.js"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}


def plain_bars(app, what, name, obj, options, lines: list[str]) -> None:
    """Keep |w| in a docstring what it is, rather than the substitution it would be for Sphinx."""
    for number, line in enumerate(lines):
        parts = re.split("(`[^`]*`)", line)
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        lines[number] = "".join(parts)


def plain_types(app, what, name, obj, options, signature: str | None, returns: str | None):
    """A type without what checks its values, which is said in words where the value is described."""
    checked = r"(?:~?typing\.)?Annotated\[([^,\[\]]+), (?:[^\[\]]|\[[^\[\]]*\])*\]"
    return tuple(part and re.sub(checked, r"\1", part) for part in (signature, returns))


def setup(app) -> None:
    """Connect what the build needs beside its settings."""
    app.connect("autodoc-process-docstring", plain_bars)
    app.connect("autodoc-process-signature", plain_types)
