"""A few synthetic images that stand for a data set: statistics of classes, synthesis, and what comes of it."""

from tarot.distillation.distil import (
    batches_of,
    check_classes,
    class_barycenters,
    distill,
    drawn_by_class,
    images_of,
    initial,
    matched_images,
    task_of,
)
from tarot.distillation.distilled import Distilled, write_images
from tarot.distillation.per_class import ClassStatistics, Survey, class_statistics, surveyed
from tarot.distillation.synthesis import Pixels, Synthesis, synthesise
from tarot.distillation.teacher import batch_norms, watched

__all__ = [
    "ClassStatistics",
    "Distilled",
    "Pixels",
    "Survey",
    "Synthesis",
    "batch_norms",
    "batches_of",
    "check_classes",
    "class_barycenters",
    "class_statistics",
    "distill",
    "drawn_by_class",
    "images_of",
    "initial",
    "matched_images",
    "surveyed",
    "synthesise",
    "task_of",
    "watched",
    "write_images",
]
