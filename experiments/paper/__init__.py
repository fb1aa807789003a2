"""The paper's tables and figures from one command: what it claims, and what our runs say of it."""

from experiments.paper.experiment import Paper
from experiments.paper.runs import Asked

__all__ = ["Asked", "Paper"]
