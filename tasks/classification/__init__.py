"""Image classification: scikit-learn's digits (embedded), CIFAR-10 and Clothing1M.

`clothing1m` is imported where it is asked for: torchvision takes seconds.
"""

from tasks.classification.cifar10 import CIFAR10
from tasks.classification.corruption import Corrupted
from tasks.classification.digits import Digits
from tasks.classification.domain import Plain, Rotated
from tasks.common.training import Surrogate

__all__ = ["CIFAR10", "Corrupted", "Digits", "Plain", "Rotated", "Surrogate"]
