"""AutoBots and Wayformer, their losses, and what they predict."""

from tasks.motion.models.autobots import MINI_AUTOBOT, AutoBotArchitecture
from tasks.motion.models.forecasters import Forecaster, MotionModel
from tasks.motion.models.losses import MINI_LOSS, LossWeights, autobot_losses, wayformer_losses
from tasks.motion.models.prediction import Prediction
from tasks.motion.models.wayformer import MINI_WAYFORMER, WayformerArchitecture

__all__ = [
    "MINI_AUTOBOT",
    "MINI_LOSS",
    "MINI_WAYFORMER",
    "AutoBotArchitecture",
    "Forecaster",
    "LossWeights",
    "MotionModel",
    "Prediction",
    "WayformerArchitecture",
    "autobot_losses",
    "wayformer_losses",
]
