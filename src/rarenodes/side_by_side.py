"""Calls that do not depend on each other, one process a core.

Every call does what it would do alone, with its own number of threads, so that results have the same
bits however many cores there are. Starting a process costs some seconds of imports: callers give only
work that is worth it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from joblib import Parallel, cpu_count, delayed, parallel_config
from tqdm import tqdm

Result = TypeVar("Result")


def processes(threads: int = 1) -> int:
    """How many processes of so many threads the cores have room for, at least 1.

    The cores are those this process may use; the environment variable `LOKY_MAX_CPU_COUNT` of the
    library that starts the processes lowers their number.
    """
    return max(1, cpu_count() // threads)


def side_by_side(
    function: Callable[..., Result],
    arguments: Iterable[Sequence],
    at_once: int,
    about: str,
) -> list[Result]:
    """Call a function with each of some arguments, some calls at once.

    An exception of a call is raised here, and the calls under way are ended.

    Args:
        function: at the top level of a module.
        arguments: of each call.
        at_once: most calls at the same time; with 1 they are made here, one after the other.
        about: what the progress bar says.

    Returns:
        What the calls return, in the order of the arguments.

    """
    calls = [delayed(function)(*given) for given in arguments]
    at_once = min(at_once, len(calls))
    if at_once <= 1:
        return [call(*given) for call, given, _ in calls]
    with parallel_config(backend="loky", inner_max_num_threads=1):
        results = Parallel(n_jobs=at_once, return_as="generator")(calls)
        return list(tqdm(results, desc=about, total=len(calls), disable=None))
