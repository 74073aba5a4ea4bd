"""Damages valid files in thousands of ways, and looks at what the library makes of them.

    python tests/fuzz.py --arff 2000 --tables 1000 --seed 1

A case is one valid set of files, up to three mutations of one of them, and a load through a public
function. Wrong is: an error that is no `ValueError` or `OSError` of the library, or whose message has
several lines or names no file or data set; more than 5 s of processor time; a dead process; and,
where the files load all the same, any row, label or edge that an independent count finds and the
library does not, or the other way round. The counts below are made by simple means (`pandas`,
`json`, splitting lines), on the mutated bytes.

Another kind of file joins by an entry in `TARGETS`: a function that makes one case's files and says
how to load and count them, and the mutators that suit its files.
"""

import argparse
import csv
import io
import json
import multiprocessing
import random
import re
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SECONDS = 5

Found = Mapping[str, Any]
Mutator = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Case:
    """Files, one of them damaged.

    Attributes:
        files: content by name.
        damaged: name of the one that is damaged.
        load: loads the folder of the files through the library, and says what it found.
        count: says the same by simple means.
        where: with what a message may begin instead of naming a file, such as a data set's name.

    """

    files: Mapping[str, bytes]
    damaged: str
    load: Callable[[Path], Found]
    count: Callable[[Path], Found]
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fault:
    """What was wrong with a case; `target`, `seed` and `number` make it anew."""

    target: str
    seed: int
    number: int
    mutations: tuple[str, ...]
    what: str

    def __str__(self) -> str:
        how = ", ".join(self.mutations)
        return f"{self.target} {self.number} (seed {self.seed}; {how}): {self.what}"


# Mutators of any file.


def _flip_a_bit(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return content
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def _cut_off(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _cut_out(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + content[at + rng.randrange(1, 20) :]


def _insert_junk(content: bytes, rng: random.Random) -> bytes:
    junk = [b"\0", b"\xff", b'"', b"'", b",", b";", b"/", b"@", b"%", b"{", b"}", b"[", b"]", b"!"]
    junk += [b":", b"\n", b"\r", b"\x0c", "\u2028".encode(), b"\\ud800", b"1e31", b"inf", b"nan"]
    junk += [b"1,5", b"1_0", b"root", b"NA", b"?", "é".encode(), b"\\", b"  ", b"\t", b"=", b"-"]
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice(junk) + content[at:]


def _byte_order_mark(content: bytes, rng: random.Random) -> bytes:
    return b"\xef\xbb\xbf" + content


def _utf_16(content: bytes, rng: random.Random) -> bytes:
    return content.decode("latin-1").encode("utf-16")


def _empty(content: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"", b"\n", b" ", b"\0"])


# Mutators of text; many leave the file valid.


def _on_lines(change: Callable[[list[bytes], random.Random], object]) -> Mutator:
    def mutate(content: bytes, rng: random.Random) -> bytes:
        lines = content.split(b"\n")
        change(lines, rng)
        return b"\n".join(lines)

    return mutate


def _drop_line(lines: list[bytes], rng: random.Random) -> None:
    del lines[rng.randrange(len(lines))]


def _double_line(lines: list[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    lines.insert(at, lines[at])


def _swap_lines(lines: list[bytes], rng: random.Random) -> None:
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]


def _join_lines(lines: list[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    lines[at : at + 2] = [b"".join(lines[at : at + 2])]


def _blank_line(lines: list[bytes], rng: random.Random) -> None:
    lines.insert(rng.randrange(len(lines) + 1), rng.choice([b"", b"  ", b"\t"]))


def _comment(lines: list[bytes], rng: random.Random) -> None:
    lines.insert(rng.randrange(len(lines) + 1), rng.choice([b"% note", b"! note", b"# note"]))


def _end_with_comment(lines: list[bytes], rng: random.Random) -> None:
    lines[rng.randrange(len(lines))] += rng.choice(
        [b" ! note", b' {source="x"} ! note', b" % note"]
    )


def _swap_letters(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(max(len(content) - 1, 1))
    return content[:at] + content[at : at + 2][::-1] + content[at + 2 :]


def _windows_lines(content: bytes, rng: random.Random) -> bytes:
    return content.replace(b"\n", b"\r\n")


def _old_mac_lines(content: bytes, rng: random.Random) -> bytes:
    return content.replace(b"\n", b"\r")


def _other_token(content: bytes, rng: random.Random) -> bytes:
    """Put one word of the file in the place of another: typos that are words, doubled names."""
    words = [match.span() for match in re.finditer(rb"[\w./@?-]+", content)]
    if not words:
        return content
    (start, end), (a, b) = rng.choice(words), rng.choice(words)
    return content[:start] + content[a:b] + content[end:]


def _nest(content: bytes, rng: random.Random) -> bytes:
    depth = rng.choice([3, 2000, 100_000])
    return b"[" * depth + content + b"]" * depth


def _long_cell(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice([b"x", b"9", b"/a", b" "]) * 200_000 + content[at:]


BYTES: dict[str, Mutator] = {
    "flip a bit": _flip_a_bit,
    "cut off": _cut_off,
    "cut out": _cut_out,
    "empty": _empty,
}

TEXT: dict[str, Mutator] = {
    **BYTES,
    "insert junk": _insert_junk,
    "byte order mark": _byte_order_mark,
    "UTF-16": _utf_16,
    "drop a line": _on_lines(_drop_line),
    "double a line": _on_lines(_double_line),
    "swap lines": _on_lines(_swap_lines),
    "join lines": _on_lines(_join_lines),
    "blank line": _on_lines(_blank_line),
    "comment": _on_lines(_comment),
    "end with comment": _on_lines(_end_with_comment),
    "swap letters": _swap_letters,
    "Windows lines": _windows_lines,
    "old Mac lines": _old_mac_lines,
    "another token": _other_token,
    "nest": _nest,
    "long cell": _long_cell,
}


# Hierarchical ARFF.


def arff_case(rng: random.Random) -> Case:
    """A file of a tree or a DAG, with numbers, categories and missing values."""
    entries, nodes = rng.choice([_arff_tree, _arff_dag])(rng)
    lines = ["% made for a test", "@RELATION 'made'", ""]
    lines += ["@ATTRIBUTE x numeric", "@attribute 'body colour' {red, green,blue}"]
    lines += [f"@ATTRIBUTE class hierarchical {','.join(entries)}", "@DATA"]
    for _ in range(rng.randrange(1, 12)):
        number = rng.choice(["?", f"{rng.gauss(0, 10):.3f}", "1e3", "-2"])
        labels = rng.sample(nodes, rng.randrange(1, min(4, len(nodes)) + 1))
        lines.append(f"{number},{rng.choice(['red', 'green', 'blue', '?'])},{'@'.join(labels)}")
    content = "\n".join(lines) + "\n"
    return Case({"made.arff": content.encode()}, "made.arff", _load_arff, _count_arff)


def _arff_tree(rng: random.Random) -> tuple[list[str], list[str]]:
    nodes = [f"{i:02}" for i in range(1, rng.randrange(2, 5))]
    for _ in range(rng.randrange(8)):
        nodes.append(f"{rng.choice(nodes)}/{rng.randrange(1, 99):02}")
    entries = list(dict.fromkeys(nodes)) + rng.sample(nodes, 1)  # repeated entries are allowed
    return entries, list(dict.fromkeys(nodes))


def _arff_dag(rng: random.Random) -> tuple[list[str], list[str]]:
    nodes = [f"GO{i:04}" for i in range(rng.randrange(2, 9))]
    entries = [f"root/{nodes[0]}"]
    for i, node in enumerate(nodes[1:], start=1):
        for parent in rng.sample(nodes[:i], rng.randrange(1, min(i, 2) + 1)):
            entries.append(f"{parent}/{node}")
    return entries, nodes


def _load_arff(folder: Path) -> Found:
    from rarenodes.datasets.arff import read_clus_arff
    from rarenodes.loss.hierarchy import Hierarchy

    arff = read_clus_arff(folder / "made.arff")
    Hierarchy(arff.edges)
    return {
        "rows": len(arff.values),
        "labels": [sorted(names) for names in arff.labels],
        "attributes": len(arff.attributes),
        "missing": int((arff.values != arff.values).sum()),
    }


def _count_arff(folder: Path) -> Found:
    content = (folder / "made.arff").read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = [line.strip() for line in re.split("\r\n|\r|\n", content.decode())]
    lines = [line for line in lines if line and line[0] != "%"]
    at = next(i for i, line in enumerate(lines) if line.lower().startswith("@data"))
    declared = [line for line in lines[:at] if line.lower().startswith("@attribute")]
    class_at = next(i for i, line in enumerate(declared) if "hierarchical" in line.lower())
    rows = [[cell.strip() for cell in line.split(",")] for line in lines[at + 1 :]]
    return {
        "rows": len(rows),
        "labels": [
            sorted({label.strip() for label in row[class_at].strip("'\"").split("@")})
            for row in rows
        ],
        "attributes": len(declared) - 1,
        "missing": sum(row.count("?") for row in rows),
    }


# Own tables and their hierarchies.


def table_case(rng: random.Random) -> Case:
    """A CSV or Parquet table and a hierarchy in CSV, JSON or OBO, one of the two damaged."""
    edges = _edges(rng)
    nodes = sorted({name for edge in edges for name in edge})
    rows = rng.randrange(4, 15)
    columns: dict[str, list[Any]] = {
        "size": [rng.choice([None, round(rng.gauss(0, 5), 2)]) for _ in range(rows)],
        "colour": [rng.choice(["red", "blue", "dark, green"]) for _ in range(rows)],
        "title": [
            f"{rng.choice(['a red', 'big', '…', 'the'])} {rng.choice('ab!')}" for _ in range(rows)
        ],
        "labels": [";".join(rng.sample(nodes, rng.randrange(1, 3))) for _ in range(rows)],
    }
    table, hierarchy = rng.choice(list(_TABLES)), rng.choice(list(_HIERARCHIES))
    files = {
        f"own{table}": _TABLES[table](columns),
        f"edges{hierarchy}": _HIERARCHIES[hierarchy](edges),
    }
    names = list(files)
    # A hierarchy is also read alone, since a table refuses most that lack a label's node.
    return rng.choice(
        [
            Case(files, names[0], _load_table, _count_table, ("table: ",)),
            Case(files, names[1], _load_table, _count_table, ("table: ",)),
            Case({names[1]: files[names[1]]}, names[1], _load_hierarchy, _count_hierarchy),
        ]
    )


def _edges(rng: random.Random) -> list[tuple[str, str]]:
    nodes = ["all", *(f"n{i}" for i in range(1, rng.randrange(3, 9)))]
    edges = []
    for i, node in enumerate(nodes[1:], start=1):
        for parent in rng.sample(nodes[:i], rng.randrange(1, min(i, 2) + 1)):
            edges.append((node, parent))
    rng.shuffle(edges)
    return edges


def _as_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([names, *rows])
    return stream.getvalue().encode()


def _as_parquet(columns: Mapping[str, list[Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), stream, write_page_checksum=True)
    return stream.getvalue()


def _as_obo(edges: Sequence[tuple[str, str]]) -> bytes:
    stanzas = ["format-version: 1.2\n"]
    for node in sorted({name for edge in edges for name in edge}):
        lines = ["[Term]", f"id: {node}", f"name: the {node}"]
        lines += [f"is_a: {parent} ! {parent}" for child, parent in edges if child == node]
        stanzas.append("\n".join(lines) + "\n")
    stanzas.append("[Term]\nid: old\nis_a: all\nis_obsolete: true\n")
    return "\n".join(stanzas).encode()


_TABLES: dict[str, Callable[[Mapping[str, list[Any]]], bytes]] = {
    ".csv": lambda columns: _as_csv(list(columns), zip(*columns.values(), strict=True)),
    ".parquet": _as_parquet,
}

_HIERARCHIES: dict[str, Callable[[Sequence[tuple[str, str]]], bytes]] = {
    ".csv": lambda edges: _as_csv(["child", "parent"], edges),
    ".json": lambda edges: json.dumps(edges, indent=0).encode(),
    ".obo": _as_obo,
}


def _names(folder: Path) -> tuple[Path, Path | None]:
    """The hierarchy, and the table if there is one."""
    return next(folder.glob("edges.*")), next(folder.glob("own.*"), None)


def _load_hierarchy(folder: Path) -> Found:
    from rarenodes.datasets.edge_lists import read_hierarchy

    return {"edges": sorted(read_hierarchy(_names(folder)[0]).edges)}


def _count_hierarchy(folder: Path) -> Found:
    return {"edges": _counted_edges(folder)}


def _load_table(folder: Path) -> Found:
    from rarenodes.datasets import load_dataset

    hierarchy, table = _names(folder)
    files = {"examples": table.name, "hierarchy": hierarchy.name, "test_fraction": 0.3}
    plain = load_dataset("table", folder, options=files)
    texts = load_dataset("table", folder, options={**files, "text": "title", "components": 2})
    counted = sum(texts.card[key] for key in ("merged_texts", "texts_without_words"))
    nodes = plain.hierarchy.nodes
    return {
        "rows": plain.targets.shape[0],
        "rows of texts": len(texts.features) + counted,
        "labels": [
            sorted(nodes[i] for i in plain.targets[[row]].indices)
            for row in range(len(plain.features))
        ],
        "nodes": len(nodes) + plain.card["dropped_nodes"],
        "in parts": sum(map(len, plain.split.values())),
    }


def _count_table(folder: Path) -> Found:
    import pandas as pd

    _, path = _names(folder)
    if path.suffix == ".csv":
        # In one kind of line ends: at two `\r` pandas loses a line after an empty one.
        content = io.StringIO(re.sub(r"\r\n?", "\n", path.read_bytes().decode("utf-8-sig")))
        labels = pd.read_csv(content, dtype=str, keep_default_na=False, skipinitialspace=False)
        labels = labels.rename(columns=str.strip)["labels"]
    else:
        labels = pd.read_parquet(path)["labels"]
    edges = _counted_edges(folder)
    closed = []
    for cell in labels:
        names = {name.strip() for name in cell.split(";") if name.strip()}
        while more := {parent for child, parent in edges if child in names} - names:
            names |= more
        closed.append(sorted(names))
    nodes = {name for edge in edges for name in edge}
    return {
        "rows": len(closed),
        "rows of texts": len(closed),
        "labels": closed,
        "nodes": len(nodes),
        "in parts": len(closed),
    }


def _counted_edges(folder: Path) -> list[tuple[str, str]]:
    path, _ = _names(folder)
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode()
    if path.suffix == ".csv":
        import pandas as pd

        table = pd.read_csv(io.StringIO(content), dtype=str, keep_default_na=False)
        edges = [tuple(name.strip() for name in row) for row in table.itertuples(index=False)]
        alone: set[str] = set()
    elif path.suffix == ".json":
        edges = [tuple(name.strip() for name in pair) for pair in json.loads(content)]
        alone = set()
    else:
        edges, alone = _counted_obo(content)
    tops = sorted(
        ({name for edge in edges for name in edge} | alone) - {child for child, _ in edges}
    )
    return sorted(edges + [(top, "root") for top in tops] if len(tops) > 1 else edges)


def _counted_obo(content: str) -> tuple[list[tuple[str, str]], set[str]]:
    edges, ids = [], set()
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    for stanza in re.split(r"(?m)^\s*(?=\[)", content)[1:]:
        lines = [line.strip() for line in stanza.split("\n")]
        said = [line.partition(":")[::2] for line in lines[1:]]
        values = [(tag.strip(), re.sub(r"[!{].*", "", value).strip()) for tag, value in said]
        if not lines[0].startswith("[Term]") or ("is_obsolete", "true") in values:
            continue
        name = next(value for tag, value in values if tag == "id").replace("\\", "")
        ids.add(name)
        edges += [(name, value.replace("\\", "")) for tag, value in values if tag == "is_a"]
    return edges, ids


@dataclass(frozen=True)
class Target:
    """A kind of file: what makes its cases, and the mutators of a file, given its name."""

    case: Callable[[random.Random], Case]
    mutators: Callable[[str], Mapping[str, Mutator]]


def _by_ending(name: str) -> Mapping[str, Mutator]:
    return BYTES if name.endswith(".parquet") else TEXT


TARGETS: dict[str, Target] = {
    "arff": Target(arff_case, _by_ending),
    "tables": Target(table_case, _by_ending),
}


def made(name: str, target: Target, seed: int, number: int) -> tuple[Case, tuple[str, ...]]:
    """One case, the same each time, and the names of what was done to its file."""
    rng = random.Random(f"{name} {seed} {number}")
    case = target.case(rng)
    mutators = target.mutators(case.damaged)
    mutations = tuple(rng.choice(list(mutators)) for _ in range(rng.choice([0, 1, 1, 1, 2, 3])))
    content = case.files[case.damaged]
    for mutation in mutations:
        content = mutators[mutation](content, rng)
    return replace(case, files={**case.files, case.damaged: content}), mutations


LOADED, REFUSED = "loaded", "refused"


def judged(case: Case, folder: Path) -> str:
    """`LOADED` or `REFUSED` where the library takes a case as it should, else what is wrong."""
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    try:
        found = case.load(folder)
    except (ValueError, OSError) as error:
        return _wrong_message(case, error) or REFUSED
    except Exception as error:
        return "".join(traceback.format_exception(error))[-1500:]
    try:
        expected = case.count(folder)
    except Exception as error:
        return f"loaded, but cannot be counted: {type(error).__name__}: {str(error)[:200]}"
    for what, value in expected.items():
        if found[what] != value:
            return f"{what}: found {str(found[what])[:200]}, counted {str(value)[:200]}"
    return LOADED


def _wrong_message(case: Case, error: Exception) -> str | None:
    message = str(error)
    if len(message.splitlines()) != 1:
        return f"the message has {len(message.splitlines())} lines: {message[:300]!r}"
    if len(message) > 1000:
        return f"the message has {len(message)} letters: {message[:300]}"
    is_ours = type(error).__module__.partition(".")[0] in ("rarenodes", "builtins")
    if not is_ours or isinstance(error, UnicodeError):
        return f"an error of another library: {type(error)}: {message}"
    if not (message.startswith(case.where) or any(name in message for name in case.files)):
        return f"the message names no file: {message}"
    return None


def _serve(connection, name: str, target: Target, seconds: int) -> None:
    """A process that judges one case after another, and dies of one that takes too long."""
    import warnings

    warnings.simplefilter("ignore")
    from rarenodes.datasets import load_dataset  # imports are not what is timed

    load_dataset("synthetic", options={"examples": 9})
    for seed, number in iter(connection.recv, None):
        case, _ = made(name, target, seed, number)
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        with tempfile.TemporaryDirectory() as folder:
            connection.send(judged(case, Path(folder)))


class _Worker:
    """A process for the cases of a target; a new one follows where one dies."""

    def __init__(self, name: str, target: Target, seconds: int):
        self._asked = (name, target, seconds)
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._asked), daemon=True)
        self._process.start()
        theirs.close()

    def judge(self, seed: int, number: int) -> str:
        self._connection.send((seed, number))
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._start()
            if code == -signal.SIGXCPU:
                return f"takes more than {self._asked[2]} s"
            return f"the process died: {code}"

    def close(self) -> None:
        self._connection.send(None)
        self._process.join()


def tried(
    name: str, target: Target, cases: Iterable[int], seed: int, seconds: int = SECONDS
) -> tuple[Counter, list[Fault]]:
    """How many cases loaded and how many were refused, and the faults of all others.

    They run in a process of their own, which a crash may take with it.
    """
    worker, outcomes, faults = _Worker(name, target, seconds), Counter(), []
    for number in cases:
        outcome = worker.judge(seed, number)
        if outcome in (LOADED, REFUSED):
            outcomes[outcome] += 1
        else:
            mutations = made(name, target, seed, number)[1]
            faults.append(Fault(name, seed, number, mutations, outcome))
    worker.close()
    return outcomes, faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases that were asked for; exit code 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    for name in TARGETS:
        parser.add_argument(f"--{name}", type=int, default=0, metavar="CASES")
    options = parser.parse_args(arguments)
    any_fault = False
    for name, target in TARGETS.items():
        if cases := getattr(options, name):
            outcomes, faults = tried(name, target, range(cases), options.seed)
            print(*faults, sep="\n", end="\n" if faults else "")
            print(
                f"{name}: {cases} cases, {outcomes[LOADED]} loaded and counted, "
                f"{outcomes[REFUSED]} refused in one line, {len(faults)} faults"
            )
            any_fault = any_fault or bool(faults)
    return int(any_fault)


if __name__ == "__main__":
    sys.exit(main())
