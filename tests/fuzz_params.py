"""Mutated parameter files: none may give a traceback, hang, or an error that says nothing.

    python tests/fuzz_params.py [number of mutations] [seed]

Each mutation of the default study's `params.yaml`, or of the tiny one, is loaded as `rarenodes
check` loads it: either it is a study, or a `SettingsError` says what is wrong, one line a fault,
each with the file's name.
"""

import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from rarenodes.settings import SettingsError
from rarenodes.study.params import Study

TESTS = Path(__file__).parent
SOURCES = (TESTS.parent / "params.yaml", TESTS / "tiny" / "params.yaml")
LONGEST_SECONDS = 5
# No line needs more to be understood; the names of all variants may be listed in it.
LONGEST_LINE = 4000

# What takes the place of a value: every kind of YAML value, and what is only nearly one.
VALUES = (
    *("", "~", "null", "true", "no", "0", "-1", "1", "1e12", "1.0e+300", "-.inf", ".nan", "0x7f"),
    *("1_000", "010", "1:30", "0b_", "10**9", "1000000000", f"{10**40}", "9" * 5000, "1e-3"),
    *("''", "' '", '"\\0"', '"\\ud800"', '"a\\nb"', "'" + "x" * 3000 + "'", "ä€𝄞", "2026-01-01"),
    *("[]", "{}", "[1, two, [3]]", "{a: {b: {c: 1}}}", "[train, train]", "{? [a] : 1}", "{1: 2}"),
    *("*nothing", "&a [*a]", "&a {<<: *a}", "!!set {a}", "!!int x", "!!bool x", "!!binary aa"),
    *("!!python/name:os.system", "!<tag:x> 1", "!", "&", "*", "|", ">-", "%YAML 9.9", "---", "..."),
    *("../../../etc/passwd", "/dev/zero", "x; touch PWNED #", "$(id)", "`id`", "@a", "a: b: c"),
    *("[" * 3000, "{a: " * 3000, "- " * 3000, "mcm", "valid", "table", "arff", "icd10cm"),
)


def mutate(text: str, rng: random.Random) -> str:
    """One to four random changes to a text of YAML."""
    for _ in range(rng.randint(1, 4)):
        text = rng.choice(_MUTATORS)(text, rng)
    return text


def mutations(number: int, seed: int) -> Iterator[str]:
    """So many mutated files, the same for the same seed."""
    rng = random.Random(seed)
    sources = [path.read_text() for path in SOURCES]
    for _ in range(number):
        yield mutate(rng.choice(sources), rng)


def load(path: Path) -> Study:
    """Load a study and look at all that `rarenodes` looks at before it runs a stage."""
    study = Study(path)
    study.variant_table()
    for dataset in study.parameters.datasets:
        study.prepared(dataset)
        for variant in study.variants:
            study.training(dataset, variant)
            study.results(dataset, variant)
    return study


def examine(text: str, folder: Path) -> str | None:
    """What is wrong with how a mutated file is treated, or None."""
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    (folder / "variants.yaml").write_text((TESTS.parent / "variants.yaml").read_text())
    signal.signal(signal.SIGPROF, _too_slow)
    signal.setitimer(signal.ITIMER_PROF, LONGEST_SECONDS)  # of processor time
    try:
        load(path)
    except SettingsError as error:
        lines = str(error).splitlines()
        if not lines or any(not line.startswith(str(folder)) for line in lines):
            return f"a line without the file's name: {str(error)[:500]!r}"
        if max(map(len, lines)) > LONGEST_LINE:
            return f"a line of {max(map(len, lines))} characters: {str(error)[:500]!r}"
    except (Exception, Hang):
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


class Hang(BaseException):
    """Raised by the alarm; no `except` of the library's catches it."""


def _too_slow(*_):
    raise Hang(f"not loaded in {LONGEST_SECONDS} s")


def _lines(change: Callable[[list[str], int, random.Random], None]):
    """A mutator of one random line."""

    def changed(text: str, rng: random.Random) -> str:
        lines = text.splitlines() or [""]
        change(lines, rng.randrange(len(lines)), rng)
        return "\n".join(lines) + "\n"

    return changed


def _remove(lines, at, rng):
    del lines[at]


def _repeat(lines, at, rng):
    lines.insert(rng.randrange(len(lines)), lines[at])


def _swap(lines, at, rng):
    other = rng.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def _indent(lines, at, rng):
    lines[at] = rng.choice(["  ", " ", "\t", "    ", "- "]) + lines[at]


def _outdent(lines, at, rng):
    lines[at] = lines[at].removeprefix("  ")


def _other_value(lines, at, rng):
    lines[at] = f"{lines[at].partition(':')[0]}: {rng.choice(VALUES)}"


def _other_key(lines, at, rng):
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    lines[at] = f"{indent}{rng.choice(VALUES)}:{lines[at].partition(':')[2]}"


def _insert(lines, at, rng):
    lines.insert(at, "  " * rng.randrange(4) + rng.choice(VALUES))


def _characters(text: str, rng: random.Random) -> str:
    if not text:
        return text
    start = rng.randrange(len(text))
    end = min(len(text), start + rng.choice([0, 1, 1, 2, 30]))
    alphabet = "azAZ09 \n\t:-[]{}&*!|>'\"%@`#,?\\\0\x7f\u2028\ufeffä€"
    new = "".join(rng.choice(alphabet) for _ in range(rng.randrange(4)))
    return text[:start] + new + text[end:]


def _truncate(text: str, rng: random.Random) -> str:
    return text[: rng.randrange(len(text) + 1)]


def _double(text: str, rng: random.Random) -> str:
    return text + text


_MUTATORS = (
    *map(_lines, (_remove, _repeat, _swap, _indent, _outdent, _insert)),
    *(map(_lines, (_other_value, _other_key))),
    *(_lines(_other_value), _lines(_other_value), _characters, _characters, _truncate, _double),
)


def main(number: int = 2000, seed: int = 0) -> int:
    problems = 0
    with tempfile.TemporaryDirectory() as folder:
        for place, text in enumerate(mutations(number, seed)):
            problem = examine(text, Path(folder))
            if problem is not None:
                problems += 1
                print(f"mutation {place} of seed {seed}:\n{problem}")
    print(f"{number} mutations, {problems} problems")
    return min(problems, 1)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
