"""Features that the user brings; there is no model."""

from tasks.features.task import FeatureTask

__all__ = ["FeatureTask"]
