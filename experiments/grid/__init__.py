"""Representations x algorithms x budgets: how samples are represented, and how a subset is chosen."""

from experiments.grid.experiment import Grid

__all__ = ["Grid"]
