"""Segmentation of street scenes: rendered (embedded), CamVid, any folders, GTA5 -> Cityscapes."""

from tasks.segmentation.data import CamVid, Folders, GTA5ToCityscapes, Street
from tasks.segmentation.model import Architecture
from tasks.segmentation.task import SegmentationTask
from tasks.segmentation.training import SegmentationTraining

__all__ = [
    "Architecture",
    "CamVid",
    "Folders",
    "GTA5ToCityscapes",
    "SegmentationTask",
    "SegmentationTraining",
    "Street",
]
