"""Rows as trainers take them: from files and the hub to conversations, each with a name and an account of what was left
out."""

from tasks.instruction.reading.columns import columns_of
from tasks.instruction.reading.faults import NAMED, Account, BadRowError
from tasks.instruction.reading.reader import read_rows
from tasks.instruction.reading.row import Row, check_ids

__all__ = ["NAMED", "Account", "BadRowError", "Row", "check_ids", "columns_of", "read_rows"]
