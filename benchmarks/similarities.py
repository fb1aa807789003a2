"""What the rules on similarities cost beside the product that they cannot do without.

    python benchmarks/similarities.py --candidates 100000 --targets 1000 --dims 512 --size 5000

The product is taken anew before each method, so that both see the same load.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from tarot.features import blocks
from tarot.selection import SelectionProblem
from tarot.selectors import SELECTORS

METHODS = ("round_robin", "doubly_greedy", "facility_location", "bids", "uot")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, count in (("candidates", 100_000), ("targets", 1000), ("dims", 512), ("size", 5000), ("groups", 50)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    options = parser.parse_args()
    torch.set_num_threads(1)

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(options.groups, options.dims)).astype(np.float32)

    def rows(count: int, groups: int) -> np.ndarray:
        noise = rng.standard_normal(size=(count, options.dims), dtype=np.float32)
        return centres[rng.integers(0, groups, count)] + 2 * noise

    candidates, targets = rows(options.candidates, options.groups), rows(options.targets, options.groups // 5)
    for name in options.methods:
        problem = SelectionProblem((candidates,), (targets,), whitening=None)
        product = seconds(
            lambda problem=problem: [block @ problem.targets.T for _, block in blocks(problem.candidates)]
        )
        problem = SelectionProblem((candidates,), (targets,), whitening=None)
        method = SELECTORS[name](size=options.size)  # type: ignore[call-arg]
        taken = seconds(lambda method=method, problem=problem: method.select(problem))
        print(f"{name}: {taken:.1f} s, {taken / product:.1f} times the product ({product:.1f} s)", flush=True)


def seconds(function) -> float:  # type: ignore[no-untyped-def]
    """Of the processor: other programs do not count."""
    start = time.process_time()
    function()
    return time.process_time() - start


if __name__ == "__main__":
    main()
