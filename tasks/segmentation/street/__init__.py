"""Street scenes made of code, with the class of every pixel."""

from tasks.segmentation.street.domain import street_splits
from tasks.segmentation.street.objects import CLASSES, PALETTE
from tasks.segmentation.street.rendering import VERSION, render

__all__ = ["CLASSES", "PALETTE", "VERSION", "render", "street_splits"]
