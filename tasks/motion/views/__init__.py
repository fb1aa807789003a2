"""What a model sees of a scenario: agents, lanes and the future around one target."""

from tasks.motion.views.profile import MINI, PAPER_AUTOBOT, PAPER_WAYFORMER, Profile
from tasks.motion.views.samples import Batch, MotionSamples, cached_samples, samples_of
from tasks.motion.views.tags import TYPES, bucket, trajectory_type
from tasks.motion.views.windows import TargetFilter

__all__ = [
    "MINI",
    "PAPER_AUTOBOT",
    "PAPER_WAYFORMER",
    "TYPES",
    "Batch",
    "MotionSamples",
    "Profile",
    "TargetFilter",
    "bucket",
    "cached_samples",
    "samples_of",
    "trajectory_type",
]
