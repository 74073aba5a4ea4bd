"""What is registered in one place works in losses, settings and everything built from them."""

import re

import numpy as np
import pytest
import torch
from conformance import DAG, TARGETS, random_logits
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss import uncertainty as uncertainties
from rarenodes.loss import weighting
from rarenodes.loss.coherent import Focal, RareNodeLoss
from rarenodes.settings import SettingsError, read_settings
from rarenodes.training.variants import VariantSettings, build_loss


def spread(probabilities):
    """Largest minus smallest probability of the members."""
    return probabilities.amax(dim=0) - probabilities.amin(dim=0)


def power_law(counts, num_examples, *, exponent: float = 1.0, cap: float = 9.0):
    """`(N / n)^exponent`, at most `cap`."""
    if exponent < 0:
        raise ValueError(f"the exponent must be at least 0, found {exponent}")
    return (num_examples / counts.clamp(min=1)).pow(exponent).clamp(max=cap)


@pytest.fixture
def registered():
    """Both, until the test ends."""
    uncertainties.register(spread)
    weighting.register_weighting("power-law", power_law)
    yield
    del uncertainties._KINDS["spread"], weighting._WEIGHTINGS["power-law"]


def dataset() -> Dataset:
    rows = np.arange(4)
    return Dataset(
        name="four",
        features=np.zeros((4, 1), dtype=np.float32),
        targets=sparse.csr_array(TARGETS.numpy().astype(np.uint8)),
        hierarchy=DAG,
        split={"train": rows, "valid": rows[:0], "test": rows[:0]},
        evaluated=np.ones(7, dtype=bool),
        card={},
    )


def variant(**entries) -> VariantSettings:
    return read_settings(VariantSettings, {"about": "a test", **entries}, "params.yaml")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_new_uncertainty_works_from_settings_to_gradient(dtype):
    loss = build_loss(variant(focal={"uncertainty": "spread", "power": 2.0}), dataset())
    logits = random_logits(dtype=dtype).requires_grad_()
    p = torch.sigmoid(logits.detach())
    weight = 0.25 + (p.amax(0) - p.amin(0)) ** 2
    expected = (RareNodeLoss(DAG).elements(logits, TARGETS) * weight).sum() / 4
    found = loss(logits, TARGETS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    found, expected = (torch.autograd.grad(value, logits)[0] for value in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert uncertainties.uncertainty(p, "spread").shape == (4, 7)


@pytest.mark.usefixtures("registered")
def test_a_new_weighting_and_its_options_work_from_settings_to_weights():
    weights = {"mode": "power-law", "exponent": 0.5, "cap": 1.9}
    loss = build_loss(variant(weights=weights), dataset())
    # Of 4 examples: root 4, A 2, B 2, C none (counted as 1), D 1, E 2, F 1; (4 / n)^(1/2).
    expected = torch.tensor([1, 2**0.5, 2**0.5, 1.9, 1.9, 2**0.5, 1.9])
    torch.testing.assert_close(loss.positive_weight, expected)
    by_default = build_loss(variant(weights={"mode": "power-law"}), dataset())
    torch.testing.assert_close(by_default.positive_weight, torch.tensor([1.0, 2, 2, 4, 4, 2, 4]))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": 1.0}, "mode 'power-law' has no option 'power': it has exponent=1.0, cap=9.0"),
        ({"exponent": "half"}, "option 'exponent' of weighting mode 'power-law' must be a number"),
        ({"exponent": -1.0}, "the exponent must be at least 0, found -1.0"),
    ],
)
def test_messages_of_a_new_weighting(options, message):
    with pytest.raises(SettingsError, match=f"^params.yaml: weights: .*{re.escape(message)}"):
        variant(weights={"mode": "power-law", **options})


def test_unknown_names_name_the_known():
    with pytest.raises(SettingsError, match="unknown uncertainty 'spread': known are bbma, "):
        variant(focal={"uncertainty": "spread"})
    with pytest.raises(SettingsError, match="unknown weighting mode 'power-law': known are class-"):
        variant(weights={"mode": "power-law"})


def test_a_name_is_given_once():
    def gmu(probabilities):
        return probabilities[0]

    with pytest.raises(ValueError, match=r"^there is an uncertainty 'gmu' already"):
        uncertainties.register(gmu)
    with pytest.raises(ValueError, match=r"^there is a weighting mode 'binary' already"):
        weighting.register_weighting("binary", power_law)
    assert uncertainties.register(uncertainties.gmu) is uncertainties.gmu
    assert Focal("gmu").uncertainty == "gmu"
