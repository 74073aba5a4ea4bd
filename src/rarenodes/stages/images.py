"""The stage `images`: what variants gain by the quality of the encoder and the share of the data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rarenodes.pages.images import image_values
from rarenodes.pages.prose import write_values
from rarenodes.pages.tables import write_table
from rarenodes.settings import SettingsError
from rarenodes.stages.compare import evaluated
from rarenodes.study.params import Study

# How the catalogue begins to name the paper whose claim is looked at.
PAPER = "Xu et al. 2026"


@dataclass(frozen=True)
class ImageGrid:
    """Tables over all data sets, which are encoders times shares of the training images.

    Attributes:
        gains: the evaluations' differences from the baseline, with columns `dataset`, `blend`, `share`
            and `paper`, whether the variant is the paper's.
        by_rarity: the evaluations' scores by rarity, with `dataset`, `blend` and `share`.
        values: what prose may say of it, by name.

    """

    gains: pd.DataFrame
    by_rarity: pd.DataFrame
    values: Mapping[str, Any]

    def with_best_encoder(self) -> list[str]:
        """Data sets of the smallest share of random weights, most data first."""
        best = self.gains[self.gains["blend"] == self.gains["blend"].min()]
        return best.sort_values("share", ascending=False)["dataset"].unique().tolist()

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        return {
            name: value for name, value in vars(self).items() if isinstance(value, pd.DataFrame)
        }


def images(study: Study, folder: Path) -> ImageGrid:
    """Put the evaluations of all encoders and shares side by side; tables go to `folder`."""
    grid = image_grid(study)
    for table, values in grid.tables().items():
        write_table(values, folder / "tables" / table)
    write_values(grid.values, folder)
    return grid


def image_grid(study: Study) -> ImageGrid:
    """Read every data set's evaluation, and what encoder and share it is of.

    Raises:
        SettingsError: a data set has no frozen encoder, or two have the same encoder and share.
        FileNotFoundError: a data set was not evaluated.

    """
    baseline = study.parameters.evaluation.baseline
    paper = {name for name in study.variants if study.variant(name).source.startswith(PAPER)}
    places = {name: _place(study, name) for name in study.parameters.datasets}
    if len(set(places.values())) < len(places):
        raise SettingsError(
            f"{study.params_file}: datasets: expected another encoder or share in each, found two alike"
        )
    gains, by_rarity = [], []
    for name, (blend, share) in places.items():
        where = {"dataset": name, "blend": blend, "share": share}
        differences = evaluated(study, name, "differences")
        gains.append(differences[differences["baseline"] == baseline].assign(**where))
        by_rarity.append(evaluated(study, name, "by_rarity").assign(**where))
    table = pd.concat(gains, ignore_index=True)
    table["paper"] = table["variant"].isin(paper)
    return ImageGrid(
        gains=table,
        by_rarity=pd.concat(by_rarity, ignore_index=True),
        values=image_values(table, baseline, study.parameters.evaluation.rule.level),
    )


def _place(study: Study, name: str) -> tuple[float, float]:
    """The share of random weights, and the share of the training images."""
    settings = study.dataset(name)
    encoder = settings.options.get("encoder")
    if encoder is None:
        raise SettingsError(
            f"{study.params_file}: datasets.{name}.options.encoder: missing; the stage images compares "
            "data sets by their encoder: name one, or leave the stage out"
        )
    return float(encoder.get("blend", 0.0)), settings.train_fraction
