"""Measure everything, print it, and write the report: `python -m benches`."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from benches import loss, napkinxc, prediction, report, sparse, step, training
from benches.timing import machine

BENCHES: dict[str, Callable[[argparse.Namespace], pd.DataFrame]] = {
    "losses": lambda options: loss.losses(options.seconds),
    "sizes": lambda options: loss.sizes(options.seconds),
    "shapes": lambda options: loss.shapes(options.seconds),
    "memory": lambda options: loss.memory(),
    "steps": lambda options: step.steps(options.turns),
    "sparse": lambda options: sparse.sparse(),
    "million": lambda options: sparse.million(),
    "napkinxc": lambda options: napkinxc.napkinxc(),
    "cellcycle": lambda options: training.cellcycle(),
    "icd10cm": lambda options: training.icd10cm(),
    "icd10cm_sparse": lambda options: training.icd10cm_sparse(),
    "predictions": lambda options: prediction.predictions(),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("only", nargs="*", choices=[*BENCHES, []], help="print these, no report")
    parser.add_argument("--seconds", type=float, default=5.0, help="per comparison")
    parser.add_argument("--turns", type=int, default=30, help="of a training step")
    parser.add_argument("--report", type=Path, default=Path("reports/benches"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = machine()
    print(", ".join(f"{key} {value}" for key, value in found.items() if value), flush=True)
    tables = {}
    for name in options.only or BENCHES:
        tables[name] = BENCHES[name](options)
        print(f"\n{name}\n{tables[name].to_string(index=False)}", flush=True)
    if not options.only:
        report.write(tables, found, options.report)
        print(f"\n{report.aims(tables).to_string(index=False)}\n\nreport: {options.report}")


if __name__ == "__main__":
    main()
