"""Processes that one launcher started (torchrun, accelerate launch), to work on the same model at the same time.

One of them leads: it does all that a run does. The others follow: they wait until the leader calls a function together
with them, in which all may wait for one another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_AS_LONG_AS_IT_TAKES = timedelta(days=30)  # followers wait while the leader works alone


class Team:
    """rank: of this process; 0 leads. size: how many there are; 1: no launcher. together: whether all of them are in
    the same function now.

    An error in such a function may be one process's alone, for which the others would wait: that process ends, and so
    the launcher ends all."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size, self.together = rank, size, False
        self._broken = False

    def call(self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """`function(*args, **kwargs)` of every process; the leader's result. Of others they have what a pickle keeps.
        Within such a call it is called by each alone."""
        if self.size == 1 or self.together:
            return function(*args, **kwargs)
        if self._broken:
            raise ChildProcessError("the processes that work together have lost one another; start them again")
        dist.broadcast_object_list([(function, args, kwargs)], src=0)
        return self._called(function, *args, **kwargs)

    def follow(self) -> None:
        """What a follower does until the leader dismisses it."""
        while True:
            told: list[Any] = [None]
            dist.broadcast_object_list(told, src=0)
            if told[0] is None:
                dist.destroy_process_group()
                return
            function, args, kwargs = told[0]
            self._called(function, *args, **kwargs)

    def dismiss(self) -> None:
        """The leader's last word to its followers."""
        if self.size > 1 and not self._broken:
            dist.broadcast_object_list([None], src=0)
            dist.destroy_process_group()

    def _called(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        self.together = True
        try:
            return function(*args, **kwargs)
        except BaseException:
            self._broken = True
            raise
        finally:
            self.together = False

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each by its sum over all processes, where they are together."""
        if not self.together:
            return
        joined = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(joined)
        parts = joined.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def is_launched() -> bool:
    """Whether torchrun, or what calls it, has started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


@cache
def team() -> Team:
    """This process's, from what the launcher has put into its environment."""
    if not is_launched():
        return Team(0, 1)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if size > 1:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=_AS_LONG_AS_IT_TAKES)
    return Team(rank, size)
