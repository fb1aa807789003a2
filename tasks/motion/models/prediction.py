"""What every forecaster gives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Prediction(NamedTuple):
    """K futures of F steps for each of B agents, in the agent's own frame.

    trajectories: float32 [B, K, F, 5], at each step (x, y) in metres, the scales of their errors in metres, and the
        correlation of the two.
    logits: float32 [B, K], of the futures' probabilities.
    """

    trajectories: Tensor
    logits: Tensor

    @property
    def probabilities(self) -> Tensor:
        return torch.softmax(self.logits, -1)
