"""Motion prediction: AutoBots selects, Wayformer learns."""

from tasks.common.training import Surrogate
from tasks.motion.databases import Databases
from tasks.motion.models import AutoBotArchitecture, Forecaster, LossWeights, WayformerArchitecture
from tasks.motion.sources import NuScenesMini, Simulated
from tasks.motion.task import MotionTask
from tasks.motion.training import MotionTraining
from tasks.motion.views import Profile

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
