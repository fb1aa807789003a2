"""A model of motion as a task has it: its architecture, what it is shown of a scene, and the loss that it learns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from tarot.common import check_options
from tasks.motion.models.autobots import AutoBot, AutoBotArchitecture
from tasks.motion.models.losses import LossWeights, autobot_losses, wayformer_losses
from tasks.motion.models.wayformer import Wayformer, WayformerArchitecture
from tasks.motion.views import Profile
from tasks.task import Batch

MotionModel = AutoBot | Wayformer


@dataclass(frozen=True)
class Forecaster:
    """profile: what it is shown. loss: weights of its parts; Wayformer's only one is `distance`."""

    architecture: AutoBotArchitecture | WayformerArchitecture
    profile: Profile
    loss: LossWeights

    def __post_init__(self) -> None:
        check_options(self, "task.forecasters")

    def build(self) -> MotionModel:
        """A fresh model of the profile's sizes; it takes samples of any other one with the same steps, too, where its
        architecture does."""
        p = self.profile
        if isinstance(self.architecture, AutoBotArchitecture):
            return self.architecture.build(p.steps, p.horizon)
        return self.architecture.build(p.steps, p.horizon, p.agents, p.points)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B]"""
        own = autobot_losses if isinstance(self.architecture, AutoBotArchitecture) else wayformer_losses
        return own(model(batch), batch, self.loss)

    def recipe(self) -> dict[str, Any]:
        """As plain data."""
        return {"architecture": self.architecture.recipe(), "loss": asdict(self.loss), "profile": self.profile.recipe()}
