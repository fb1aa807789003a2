"""Street scenes made of code, with the class of every pixel."""

from tasks.segmentation.street.domain import street_splits
from tasks.segmentation.street.objects import CLASSES, PALETTE
from tasks.segmentation.street.rendering import render

__all__ = ["CLASSES", "PALETTE", "render", "street_splits"]
