"""Traffic made of code: roads, drivers, scenes, databases."""

from tasks.motion.simulator.databases import CANDIDATES, SHARES, START, database

__all__ = ["CANDIDATES", "SHARES", "START", "database"]
