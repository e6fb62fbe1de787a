"""The relative reconstruction bias: exact on what was shortened by a known amount, blind to unbiased noise."""

import pytest
import torch

from solutions import analysis
from solutions.errors import InputError


def activations(seed=0):
    return 3 + torch.randn(500, 8, generator=torch.Generator().manual_seed(seed))


def test_what_was_shortened_by_a_fifth_has_a_bias_of_eight_tenths():
    x = activations()
    mean = x.mean(0)
    assert analysis.reconstruction_bias(x, mean + 0.8 * (x - mean)) == pytest.approx(0.8, abs=1e-6)
    assert analysis.reconstruction_bias(x, x) == pytest.approx(1)


def test_a_projection_is_wrong_but_not_biased():
    x = activations()
    top = analysis.pca_directions(x, 3)
    x_hat = x.mean(0) + (x - x.mean(0)) @ top.T @ top  # the best there is on three directions
    assert analysis.reconstruction_bias(x, x_hat) == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_measured_is_named():
    x = activations()
    with pytest.raises(InputError, match="two tensors of one shape"):
        analysis.reconstruction_bias(x, x[:3])
    with pytest.raises(InputError, match="nothing in common"):
        analysis.reconstruction_bias(x, 2 * x.mean(0) - x)
