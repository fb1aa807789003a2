"""Scores of every candidate for every target, and how well scores predict."""

from tarot.attribution.datamodeling import LDS, choose, lds
from tarot.attribution.detection_curve import Detection, detection
from tarot.attribution.scores import (
    BETA,
    RIDGE,
    dsdm_scores,
    gradcos_scores,
    graddot_scores,
    less_scores,
    temper,
    tempered_scores,
    tracin_scores,
    tracin_values,
    trak_scores,
    wfd_scores,
)

__all__ = [
    "BETA",
    "LDS",
    "RIDGE",
    "Detection",
    "choose",
    "detection",
    "dsdm_scores",
    "gradcos_scores",
    "graddot_scores",
    "lds",
    "less_scores",
    "temper",
    "tempered_scores",
    "tracin_scores",
    "tracin_values",
    "trak_scores",
    "wfd_scores",
]
