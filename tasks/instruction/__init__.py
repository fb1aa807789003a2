"""Instruction tuning: which conversations should a language model learn from?"""

from tasks.instruction.data import Benchmark, Skills
from tasks.instruction.evaluation import Evaluation
from tasks.instruction.model import Adapter, Language
from tasks.instruction.task import InstructionTask
from tasks.instruction.training import Pretraining, Tuning, WarmUp
from tasks.instruction.users_files import FilesTask

__all__ = [
    "Adapter",
    "Benchmark",
    "Evaluation",
    "FilesTask",
    "InstructionTask",
    "Language",
    "Pretraining",
    "Skills",
    "Tuning",
    "WarmUp",
]
