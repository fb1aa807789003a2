"""One thread within, and what there was after it."""

import pytest
import torch

from experiments.frame.determinism import one_thread


@pytest.mark.parametrize("wanted", [False, True])
def test_one_thread_within_and_what_there_was_after(wanted):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), one_thread(wanted):
            assert torch.get_num_threads() == (1 if wanted else 2)
            assert torch.are_deterministic_algorithms_enabled() == wanted
            raise KeyError
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(before)


def test_a_training_in_it_does_not_depend_on_the_threads_there_are():
    rows = torch.randn(256, 96, generator=torch.Generator().manual_seed(0))

    def trained(threads):
        torch.set_num_threads(threads)
        with one_thread(True):
            model = torch.nn.Linear(96, 200)
            with torch.no_grad():
                model.weight.copy_(torch.linspace(-1, 1, model.weight.numel()).view_as(model.weight))
                model.bias.zero_()
            for _ in range(3):
                model.zero_grad()
                model(rows).square().mean().backward()
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter -= 0.1 * parameter.grad
        return model.weight.detach()

    before = torch.get_num_threads()
    try:
        assert torch.equal(trained(1), trained(2))
    finally:
        torch.set_num_threads(before)
