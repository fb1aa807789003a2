"""What counts as rounding and what as a wrong rule."""

import pytest
import torch

from tarot.common.errors import InputError
from tarot.gradients.preflight import Layout, layout_of, refuse_mixing, stacked, tolerance, unfit

ROWS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
ROUNDING = tolerance({torch.float32})


def verdict(alone=ROWS, together=ROWS, expected=ROWS):
    found = unfit({"w": expected, "v": ROWS}, {"w": alone, "v": ROWS}, {"w": together, "v": ROWS}, ROUNDING)
    assert "v" not in found
    return found.get("w")


def test_rounding_is_forgiven_and_wrong_rules_are_not():
    assert verdict() is None
    assert verdict(ROWS * 1.001, ROWS * 0.999) is None
    assert verdict(ROWS * 1.02, ROWS * 1.02) == "its rule disagrees with autograd"
    assert verdict(together=ROWS.roll(1, 0)) == "its layer does not see the samples in their order"
    swapped = ROWS[[0, 1, 2, 3, 4, 5, 7, 6]]
    assert verdict(together=swapped) == "its layer does not see the samples in their order"


def test_noise_between_alone_and_together_is_forgiven():
    """Losses near zero: 1 - p is a difference of nearly equal numbers, and each order of summation has its own."""
    noise = 0.02 * ROWS.roll(1, 0)
    assert verdict(ROWS + noise, ROWS - noise) is None
    assert verdict(ROWS + noise, ROWS + noise) == "its rule disagrees with autograd"


def test_what_the_fast_path_never_saw_is_zero():
    assert unfit({"w": ROWS}, {}, {}, ROUNDING) == {"w": "its rule disagrees with autograd"}
    assert unfit({"w": 0 * ROWS}, {}, {}, ROUNDING) == {}
    assert unfit({"w": 1e-9 * ROWS, "v": ROWS}, {"v": ROWS}, None, ROUNDING) == {}  # zero but for rounding


def test_samples_that_are_not_finite_are_left_out():
    bad = ROWS.clone()
    bad[3, 2] = torch.nan
    assert verdict(expected=bad) is None
    assert verdict(together=bad) == "its layer does not see the samples in their order"
    assert verdict(alone=bad, together=bad, expected=bad) is None


def test_rows_of_samples_are_stacked():
    """A layer that a sample does not call gives it no row."""
    rows = stacked([{"a": ROWS[:1]}, {"a": ROWS[1:2], "b": ROWS[2:3]}])
    assert torch.equal(rows["a"], ROWS[:2])
    assert torch.equal(rows["b"], torch.stack([0 * ROWS[0], ROWS[2]]))


def test_losses_that_mix_samples_are_refused():
    losses = torch.tensor([1e-6, 0.5])
    refuse_mixing(losses, losses + torch.tensor([2e-6, 1e-3]))
    refuse_mixing(torch.tensor([torch.nan, 0.5]), torch.tensor([torch.nan, 0.5]))
    with pytest.raises(InputError, match="depends on the others in its batch"):
        refuse_mixing(losses, losses + 0.1)


@pytest.mark.parametrize(
    ("one", "every", "layout"),
    [
        ((1, 5, 6), (3, 5, 6), Layout(0)),
        ((5, 1, 6), (5, 3, 6), Layout(1)),
        ((4, 6), (12, 6), Layout(0)),
        ((1, 5), (4, 5), Layout()),
        ((1, 5), (3, 15), Layout()),
        ((1,), (1,), Layout(is_constant=True)),
    ],
)
def test_the_layout_of_what_is_written(one, every, layout):
    assert layout_of(torch.Size(one), torch.Size(one), torch.Size(every), 3) == layout
    assert layout_of(torch.Size(one), torch.Size((7, *one[1:])), torch.Size(every), 3) == Layout()
    assert layout_of(torch.Size(one), None, torch.Size(every), 3) == Layout()
