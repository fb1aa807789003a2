"""Driving records as they lie on disk, read into one kind of scenario."""

from tasks.motion.formats.argoverse2 import argoverse2_folders, is_argoverse2_name, read_argoverse2
from tasks.motion.formats.scenario import CYCLIST, PEDESTRIAN, RATE, VEHICLE, MapLine, Scenario, TrafficLight, placed
from tasks.motion.formats.scenarionet import (
    count_unreadable,
    databases,
    read_scenario,
    read_scenarios,
    scenario_files,
)

__all__ = [
    "CYCLIST",
    "PEDESTRIAN",
    "RATE",
    "VEHICLE",
    "MapLine",
    "Scenario",
    "TrafficLight",
    "argoverse2_folders",
    "count_unreadable",
    "databases",
    "is_argoverse2_name",
    "placed",
    "read_argoverse2",
    "read_scenario",
    "read_scenarios",
    "scenario_files",
]
