"""Motion prediction: AutoBots selects, Wayformer learns."""

from tasks.common.training import Surrogate
from tasks.motion.autobots import AutoBotArchitecture
from tasks.motion.forecasters import Forecaster
from tasks.motion.losses import LossWeights
from tasks.motion.profile import Profile
from tasks.motion.sources import Databases, NuScenesMini, Simulated
from tasks.motion.task import MotionTask
from tasks.motion.training import MotionTraining
from tasks.motion.wayformer import WayformerArchitecture

__all__ = [
    "AutoBotArchitecture",
    "Databases",
    "Forecaster",
    "LossWeights",
    "MotionTask",
    "MotionTraining",
    "NuScenesMini",
    "Profile",
    "Simulated",
    "Surrogate",
    "WayformerArchitecture",
]
