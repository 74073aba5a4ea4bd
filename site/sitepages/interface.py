"""Pages of the library: the public names with what they are, and a page for each package."""

import ast
from pathlib import Path

# In the order in which they may import each other.
PACKAGES = (
    "loss", "datasets", "scores", "training", "inference", "models", "study", "pages", "stages",
)  # fmt: skip


def public_names(library: Path) -> dict[str, str]:
    """Each public name, and the module it is imported from, as the package itself says."""
    tree = ast.parse((library / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.name: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rarenodes")
        for alias in node.names
    }


def modules(library: Path, package: str) -> list[str]:
    """Names of a package's modules, itself first."""
    names = []
    for path in sorted((library / package).rglob("*.py")):
        parts = path.relative_to(library.parent).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(names)


def overview(library: Path, examples: str) -> str:
    """The page that lists public names and packages, as MyST.

    Args:
        library: the folder of the package.
        examples: the page of examples, to link to.

    """
    names = public_names(library)
    lines = [
        "# The library",
        "",
        f"These names are imported from `rarenodes` itself; there are [examples]({examples}).",
        "",
        "```{eval-rst}",
        ".. autosummary::",
        "   :nosignatures:",
        "",
        *(f"   ~{_home(library, names[name], name)}" for name in sorted(names, key=str.lower)),
        "```",
        "",
        "A package imports only from those before it. Every module is described from its docstrings,",
        "with its source.",
        "",
        "```{toctree}",
        ":maxdepth: 1",
        "",
        *(f"{package} <{package}>" for package in PACKAGES),
        "```",
    ]
    return "\n".join(lines) + "\n"


def package_page(library: Path, package: str) -> str:
    """The page of a package: its modules, described from their docstrings, as MyST."""
    lines = [f"# rarenodes.{package}", ""]
    for module in modules(library, package):
        lines += [f"## {module}", ""] if module != f"rarenodes.{package}" else []
        lines += [
            "```{eval-rst}",
            f".. automodule:: {module}",
            "   :members:",
            "   :exclude-members: model_config",
            "   :member-order: bysource",
            "```",
            "",
        ]
    return "\n".join(lines)


def _home(library: Path, module: str, name: str) -> str:
    """The full name of where something is defined: packages pass on what their modules hold."""
    path = library.parent.joinpath(*module.split(".")) / "__init__.py"
    if not path.exists():
        return f"{module}.{name}"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return f"{node.module}.{name}"
    return f"{module}.{name}"
