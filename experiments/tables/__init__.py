"""The paper's tables beside our runs."""

from experiments.tables.experiment import Column, PaperTable, Row

__all__ = ["Column", "PaperTable", "Row"]
