"""How much of a scene a model is shown: a profile. And the codes by which it is told what kind a thing is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from tarot import InputError
from tarot.common import Count, Positive, at_least, check_options
from tasks.motion.formats import CYCLIST, PEDESTRIAN, RATE, VEHICLE

AGENT_CODES = {VEHICLE: 1, PEDESTRIAN: 2, CYCLIST: 3}
OTHER_AGENT = 4

LINE_CODES = {
    "LANE_FREEWAY": 1,
    "LANE_SURFACE_STREET": 2,
    "LANE_SURFACE_UNSTRUCTURE": 2,
    "LANE_BIKE_LANE": 3,
    "ROAD_LINE_BROKEN_SINGLE_WHITE": 6,
    "ROAD_LINE_SOLID_SINGLE_WHITE": 7,
    "ROAD_EDGE_SIDEWALK": 7,
    "ROAD_LINE_SOLID_DOUBLE_WHITE": 8,
    "ROAD_LINE_BROKEN_SINGLE_YELLOW": 9,
    "ROAD_LINE_BROKEN_DOUBLE_YELLOW": 10,
    "ROAD_LINE_SOLID_SINGLE_YELLOW": 11,
    "ROAD_LINE_SOLID_DOUBLE_YELLOW": 12,
    "ROAD_LINE_PASSING_DOUBLE_YELLOW": 13,
    "ROAD_EDGE_BOUNDARY": 15,
    "ROAD_EDGE_MEDIAN": 16,
    "STOP_SIGN": 17,
    "CROSSWALK": 18,
    "SPEED_BUMP": 19,
}
LINE_KINDS = {
    "lane": frozenset({1, 2, 3}),
    "road_line": frozenset({6, 7, 8, 9, 10, 11, 12, 13}),
    "road_edge": frozenset({15, 16}),
    "stop_sign": frozenset({17}),
    "crosswalk": frozenset({18}),
    "speed_bump": frozenset({19}),
}
LANE_WIDTH = 29
STATE_WIDTH = 8


@dataclass(frozen=True)
class Profile:
    """Records have 10 frames a second; windows have `past` frames up to the current one, and `future` ones after it.

    stride: of these frames every so-manieth is used, counted from the current one: `steps` of the past (P) and
        `horizon` of the future (F).
    agents: so many agents are shown (A), the target first, then the nearest ones.
    segments, points: so many pieces of the map (S), of so many points each (M).
    box: (x from, x to, y from, y to) in metres in the target's frame; what is outside is not shown.
    centre: (x, y) in that frame; the pieces of the map that are nearest to it are shown.
    lines: of which kinds, of `LINE_KINDS`.
    spacing: metres between two points of a line that is resampled.
    pieces: lines are resampled and cut into pieces of M points, which are sorted by the distance of their centroid. Or
        else a line is one piece, as in UniTraj's data: resampled if it has less than M points, thinned to M points if
        it has more in the box, and sorted by the mean distance of its points.
    sizes: agents are shown with their sizes.
    """

    name: str
    past: Count = 21
    future: Count = 60
    stride: Count = 1
    agents: Count = 15
    segments: Count = 256
    points: Annotated[int, at_least(2)] = 20
    box: tuple[float, float, float, float] = (-70.0, 130.0, -100.0, 100.0)
    centre: tuple[float, float] = (30.0, 0.0)
    lines: tuple[str, ...] = ("lane",)
    spacing: Positive = 0.5
    pieces: bool = False
    sizes: bool = False

    def __post_init__(self) -> None:
        where = f"motion profile {self.name}"
        check_options(self, where)
        object.__setattr__(self, "box", tuple(self.box))  # configurations bring lists
        object.__setattr__(self, "centre", tuple(self.centre))
        object.__setattr__(self, "lines", tuple(self.lines))
        if (self.past - 1) % self.stride or self.future % self.stride:
            raise InputError(
                f"{where}: the stride must divide past - 1 and future; they are {self.past - 1} and {self.future}, and "
                f"it is {self.stride}"
            )
        if self.box[0] >= self.box[1] or self.box[2] >= self.box[3]:
            raise InputError(f"{where}: box must be [x from, x to, y from, y to] and centre [x, y], in metres")
        if unknown := set(self.lines) - set(LINE_KINDS):
            raise InputError(f"{where}: no lines are called {sorted(unknown)}; choose from {sorted(LINE_KINDS)}")

    @property
    def frames(self) -> int:
        """Of a window."""
        return self.past + self.future

    @property
    def current(self) -> int:
        """The current frame of a window."""
        return self.past - 1

    @property
    def steps(self) -> int:
        return (self.past - 1) // self.stride + 1

    @property
    def horizon(self) -> int:
        return self.future // self.stride

    @property
    def agent_width(self) -> int:
        """D: 39 of 21 steps."""
        return 18 + self.steps

    @property
    def seconds(self) -> float:
        """Between two steps."""
        return RATE * self.stride

    def recipe(self) -> dict[str, Any]:
        """All that determines the features of a window, as plain data. The name does not."""
        fields = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in fields.items() if key != "name"}


PAPER_AUTOBOT = Profile("paper_autobot")
PAPER_WAYFORMER = Profile("paper_wayformer", agents=32, segments=384, points=30)
MINI = Profile(
    "mini",
    stride=5,
    agents=6,
    segments=24,
    points=10,
    box=(-40.0, 80.0, -60.0, 60.0),
    centre=(15.0, 0.0),
    spacing=2.0,
    pieces=True,
)
PROFILES = {profile.name: profile for profile in (PAPER_AUTOBOT, PAPER_WAYFORMER, MINI)}
