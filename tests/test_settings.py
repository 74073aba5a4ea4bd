"""Settings are strict, and what is wrong with them is said in full."""

from typing import Literal

import pytest
from pydantic import Field, ValidationError, field_validator, model_validator

from rarenodes.settings import Settings, SettingsError, read_settings, unknown_name


class Focal(Settings):
    uncertainty: Literal["gmu", "bbma"] = "gmu"
    power: float = Field(1.0, gt=0)

    @field_validator("power")
    @classmethod
    def _not_13(cls, power: float) -> float:
        if power == 13:
            raise ValueError("13 brings bad luck; take 12")
        return power


class Variant(Settings):
    learning_rate: float
    epochs: int = 1
    resume: bool = False
    focal: Focal | None = None

    @model_validator(mode="after")
    def _enough(self):
        if self.resume and self.epochs < 2:
            raise ValueError("resuming needs at least 2 epochs, found 1")
        return self


class Study(Settings):
    seed: int
    variants: dict[str, Variant]
    grid: list[Variant] = Field(default_factory=list)


WHERE = "params.yaml: study"


def fault(values, kind=Study) -> str:
    with pytest.raises(SettingsError) as error:
        read_settings(kind, values, WHERE)
    return str(error.value)


def variant(**changes) -> dict:
    return {"learning_rate": 0.1, **changes}


def test_good_settings():
    found = read_settings(
        Study,
        {"seed": 3, "variants": {"mcm": {"learning_rate": 1, "focal": {"power": 2.0}}}},
        WHERE,
    )
    assert found.seed == 3
    assert found.variants["mcm"] == Variant(learning_rate=1.0, focal=Focal(power=2.0))
    assert found.variants["mcm"].focal.uncertainty == "gmu"
    assert found.grid == []


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Focal().power = 2.0


def test_unknown_key_gets_the_nearest_known_one():
    found = fault(variant(learning_rat=0.1), Variant)
    assert found == f"{WHERE}: unknown key 'learning_rat'; did you mean 'learning_rate'?"


def test_unknown_key_far_from_all_gets_all():
    found = fault(variant(zzz=1), Variant)
    known = "'learning_rate', 'epochs', 'resume', 'focal'"
    assert found == f"{WHERE}: unknown key 'zzz'; known: {known}"


def test_missing_key():
    assert fault({"variants": {}}) == f"{WHERE}: seed: missing; it is required"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"learning_rate": "1e-3"},
            "learning_rate: expected a valid number, found '1e-3', a text: write numbers without "
            "quotes, and powers of ten like 1.0e-3",
        ),
        ({"learning_rate": None}, "learning_rate: expected a valid number, found None"),
        (
            variant(epochs="3"),
            "epochs: expected a valid integer, found '3', a text: write numbers without "
            "quotes, and powers of ten like 1.0e-3",
        ),
        (variant(epochs=3.0), "epochs: expected a valid integer, found 3.0"),
        (variant(epochs=True), "epochs: expected a valid integer, found True"),
        (variant(resume="no"), "resume: expected a valid boolean, found 'no'"),
        (variant(resume=0), "resume: expected a valid boolean, found 0"),
        (
            variant(focal={"power": 0.0}),
            "focal.power: expected greater than 0, found 0.0",
        ),
        (
            variant(focal={"uncertainty": "pcs"}),
            "focal.uncertainty: expected 'gmu' or 'bbma', found 'pcs'",
        ),
        (variant(focal={"power": 13.0}), "focal.power: 13 brings bad luck; take 12"),
    ],
)
def test_wrong_value(given, expected):
    assert fault(given, Variant) == f"{WHERE}: {expected}"


def test_fault_of_the_group_as_a_whole():
    assert fault(variant(resume=True), Variant) == (
        f"{WHERE}: resuming needs at least 2 epochs, found 1"
    )


@pytest.mark.parametrize("given", [None, 3, "text", ["a"]])
def test_not_a_mapping(given):
    # What an empty or misindented YAML file gives. (The signature asks for a mapping, so this is
    # reached through a nested group.)
    found = fault({"seed": 1, "variants": {"mcm": given}})
    assert found.startswith(f"{WHERE}: variants.mcm: expected a valid dictionary")
    assert found.endswith(f"found {given!r}")


def test_nested_keys_say_where():
    found = fault({"seed": 1, "variants": {"mcm": variant(focal={"powr": 1.0})}})
    assert found == f"{WHERE}: variants.mcm.focal: unknown key 'powr'; did you mean 'power'?"
    found = fault({"seed": 1, "variants": {"mcm": {"learning_rat": 1.0, "learning_rate": 1.0}}})
    assert found == (
        f"{WHERE}: variants.mcm: unknown key 'learning_rat'; did you mean 'learning_rate'?"
    )
    found = fault({"seed": 1, "variants": {}, "grid": [variant(), variant(epoch=3)]})
    assert found == f"{WHERE}: grid.1: unknown key 'epoch'; did you mean 'epochs'?"
    found = fault({"seed": 1, "variants": {}, "grid": [variant(), {}]})
    assert found == f"{WHERE}: grid.1.learning_rate: missing; it is required"


def test_an_entry_named_like_a_field():
    found = fault({"seed": 1, "variants": {"focal": variant(epoch=3)}})
    assert found == f"{WHERE}: variants.focal: unknown key 'epoch'; did you mean 'epochs'?"


def test_several_faults_are_several_lines():
    given = {"sed": 1, "variants": {"mcm": {"epochs": "many"}, "focal": variant(resume=1)}}
    assert sorted(fault(given).splitlines()) == sorted(
        [
            f"{WHERE}: seed: missing; it is required",
            f"{WHERE}: unknown key 'sed'; did you mean 'seed'?",
            f"{WHERE}: variants.mcm.learning_rate: missing; it is required",
            f"{WHERE}: variants.mcm.epochs: expected a valid integer, found 'many'",
            f"{WHERE}: variants.focal.resume: expected a valid boolean, found 1",
        ]
    )


def test_pydantics_own_error_stays_out_of_sight():
    with pytest.raises(SettingsError) as error:
        read_settings(Study, {}, WHERE)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    assert isinstance(error.value, ValueError)


def test_unknown_name():
    found = unknown_name("variant", "focl", (n for n in ["mcm", "focal"]), "params.yaml: compare")
    assert isinstance(found, SettingsError)
    assert str(found) == "params.yaml: compare: unknown variant 'focl'; did you mean 'focal'?"
    found = unknown_name("variant", "zzz", ["mcm", "focal"], "params.yaml")
    assert str(found) == "params.yaml: unknown variant 'zzz'; known: 'mcm', 'focal'"
