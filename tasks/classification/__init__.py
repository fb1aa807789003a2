"""Image classification: scikit-learn's digits (embedded), CIFAR-10 and Clothing1M.

`clothing1m` is imported where it is asked for: torchvision takes seconds.
"""

from tasks.classification.cifar10 import CIFAR10
from tasks.classification.corruption import Corrupted
from tasks.classification.digits import Digits
from tasks.classification.domain import Plain, Rotated
from tasks.classification.images import ImageSet, LabelledImages
from tasks.classification.students import Student, train_student
from tasks.classification.task import ClassificationTask
from tasks.classification.views import Views
from tasks.common.training import Surrogate

__all__ = [
    "CIFAR10",
    "ClassificationTask",
    "Corrupted",
    "Digits",
    "ImageSet",
    "LabelledImages",
    "Plain",
    "Rotated",
    "Student",
    "Surrogate",
    "Views",
    "train_student",
]
