"""A few synthetic images that stand for a data set: statistics of classes, synthesis, and what comes of it."""

from tarot.distillation.distil import distill
from tarot.distillation.distilled import Distilled
from tarot.distillation.per_class import ClassStatistics, class_statistics
from tarot.distillation.synthesis import Synthesis

__all__ = ["ClassStatistics", "Distilled", "Synthesis", "class_statistics", "distill"]
