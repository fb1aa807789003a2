"""Wayformer (Nayakanti et al., 2022) with early fusion, as UniTraj configures it: a large forecaster.

All that is known of the scene, agents at each step and points of lanes alike, is one set of tokens. A few latent
vectors attend to them, then to each other; learned queries attend to the latents, and the first become futures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tarot import InputError
from tarot.common import Count, Natural, NonNegative, Positive, Share, check_options
from tasks.motion.models.layers import Attention, Tokens, attendable, bias_of, exact, zeroed
from tasks.motion.models.prediction import Prediction

Batch = Mapping[str, Tensor]

LANE_COLUMNS = 29
LOG_SCALES = (-1.609, 5.0)
CORRELATION = 0.5
AFTER_STEPS = 18  # columns of an agent's step beside the one-hot number of the step, `features.py`


@dataclass(frozen=True)
class WayformerArchitecture:
    """UniTraj's by default, 15,184,685 parameters with 21 past and 60 future steps and 32 agents.

    tokens: "steps", one for each agent's each step and each lane's each point, of all their columns; or "objects", one
        for each agent and each lane, of positions, directions and velocities alone, as `MINI_WAYFORMER` for CPUs.
    encoder_layers: of self-attention among the latents, after the one that reads the tokens.
    decoder_layers: pairs of attention to the latents and among the queries.
    expansion: width inside a layer's perceptron, in widths. dropout: of attention. spread: standard deviation of the
        initial weights, of which a narrow network needs more, or it learns slowly. scale: the length that positions
        and errors are measured in, metres; scales of errors lie between e^-1.609 and e^5 of it.
    """

    width: Count = 256
    heads: Count = 4
    latents: Count = 192
    queries: Count = 64
    modes: Count = 6
    encoder_layers: Natural = 2
    decoder_layers: Count = 8
    expansion: Count = 4
    dropout: Share = 0.1
    spread: NonNegative = 0.02
    scale: Positive = 1.0
    tokens: Literal["steps", "objects"] = "steps"

    def __post_init__(self) -> None:
        check_options(self, "architecture")
        if self.width % self.heads:
            raise InputError(f"a Wayformer's width must be a multiple of its heads: {self.width}, {self.heads}")
        if self.modes > self.queries:
            raise InputError(
                f"a Wayformer's queries must be at least as many as its modes: {self.queries}, {self.modes}"
            )

    def recipe(self) -> dict[str, object]:
        """What determines the model, as plain data."""
        return {"kind": "wayformer", **asdict(self)}

    def build(self, past: int, future: int, agents: int, points: int) -> Wayformer:
        """For so many steps of the past, the present included, and of the future, so many agents, the target among
        them, and points of a lane; any number of lanes."""
        return Wayformer(self, past, future, agents, points)


MINI_WAYFORMER = WayformerArchitecture(
    width=64, heads=4, latents=24, queries=6, decoder_layers=2, expansion=2, dropout=0.0, spread=0.07, scale=10.0,
    tokens="objects",
)  # fmt: skip


class Wayformer(nn.Module):
    """batch -> `Prediction`."""

    def __init__(self, architecture: WayformerArchitecture, past: int, future: int, agents: int, points: int) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.future = future
        self.scene = StepTokens(a.width, past, agents) if a.tokens == "steps" else ObjectTokens(a, past, agents, points)
        layer = (a.width, a.heads, a.expansion, a.dropout)
        self.latents, self.queries = Tokens(a.latents, width=a.width), Tokens(a.queries, width=a.width)
        self.reader = Layer(*layer, cross=True)
        self.encoder = nn.ModuleList(Layer(*layer) for _ in range(a.encoder_layers))
        self.cross = nn.ModuleList(Layer(*layer, cross=True) for _ in range(a.decoder_layers))
        self.own = nn.ModuleList(Layer(*layer) for _ in range(a.decoder_layers))
        self.head, self.mode_output = nn.Linear(a.width, 5 * future), nn.Linear(a.width, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=a.spread)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.latents.table.weight, std=0.02)
        nn.init.normal_(self.queries.table.weight, std=0.1)

    def forward(self, batch: Batch) -> Prediction:
        a, modes = self.architecture, self._decoded(batch)
        raw = exact(self.head, modes).unflatten(-1, (self.future, 5))
        metres = a.scale * torch.cat([raw[..., :2], raw[..., 2:4].clamp(*LOG_SCALES).exp()], -1)
        trajectories = torch.cat([metres, raw[..., 4:].clamp(-CORRELATION, CORRELATION)], -1)
        return Prediction(trajectories, exact(self.mode_output, modes).squeeze(-1))

    def embeddings(self, batch: Batch) -> Tensor:
        """What the head is given, averaged over futures, [B, width]."""
        return self._decoded(batch).mean(1)

    def _decoded(self, batch: Batch) -> Tensor:
        """What each future is told from, [B, K, width]."""
        tokens, bias = self.scene(batch)
        x = self.reader(self.latents(len(tokens)), tokens, bias)
        for layer in self.encoder:
            x = layer(x)
        queries, last = self.queries(len(tokens)), len(self.own) - 1
        for i, (cross, own) in enumerate(zip(self.cross, self.own, strict=True)):
            queries = cross(queries, x)
            queries = own(queries, asking=self.architecture.modes if i == last else None)  # nobody reads the others
        return queries


class Layer(nn.Module):
    """Attention, to a memory if `cross`, else among x itself, and a perceptron, each after a norm and with a way around
    it."""

    def __init__(self, width: int, heads: int, expansion: int, dropout: float, cross: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.memory_norm = nn.LayerNorm(width) if cross else None
        self.attention = Attention(width, heads, dropout)
        self.net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width)
        )

    def forward(
        self, x: Tensor, memory: Tensor | None = None, bias: Tensor | None = None, *, asking: int | None = None
    ) -> Tensor:
        """x [B, L, width] -> [B, L, width], or the first `asking` of it."""
        normed = self.norm(x)
        memory = normed if self.memory_norm is None else self.memory_norm(memory)
        x = x[:, :asking] + self.attention(normed[:, :asking], memory, bias)
        return x + self.net(x)


class StepTokens(nn.Module):
    """Every agent's every step, the target once more in front, and every point of every lane, with all that is known
    of them: ([B, N, width], bias of those that are valid [B, 1, 1, N]). The target counts as valid, in front."""

    def __init__(self, width: int, past: int, agents: int) -> None:
        super().__init__()
        self.agent_input = nn.Linear(past + AFTER_STEPS, width)
        self.lane_input = nn.Linear(LANE_COLUMNS, width)
        self.agent_places, self.times = Tokens(agents + 1, width=width), Tokens(past, width=width)
        for places in self.agent_places, self.times:
            nn.init.zeros_(places.table.weight)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        agents, valid = batch["agents"], batch["agents_valid"]
        agents = zeroed(agents, valid)
        agents = torch.cat([agents[:, :1], agents], 1)
        valid = torch.cat([torch.ones_like(valid[:, :1]), valid], 1).flatten(1)
        places = self.agent_places(len(agents))[:, :, None] + self.times(len(agents))[:, None]
        tokens = functional.selu(exact(self.agent_input, agents)) + places
        lanes = functional.selu(exact(self.lane_input, zeroed(batch["lanes"], batch["lanes_valid"])))
        valid = torch.cat([valid, batch["lanes_valid"].flatten(1)], 1)
        return torch.cat([tokens.flatten(1, 2), lanes.flatten(1, 2)], 1), bias_of(valid)[:, None, None]


class ObjectTokens(nn.Module):
    """One token for each agent and each lane: ([B, A + S, width], bias of those with anything valid [B, 1, 1, A + S]).

    Of an agent's step: x and y, sine and cosine of its heading, its velocity, and whether all that is valid. Of a
    lane's point: x and y, its direction, and whether it is there. Positions are in units of `scale`, velocities of
    `scale` per second.
    """

    agent_columns: Tensor
    lane_columns: Tensor
    agent_units: Tensor
    lane_units: Tensor

    def __init__(self, architecture: WayformerArchitecture, past: int, agents: int, points: int) -> None:
        super().__init__()
        width, scale = architecture.width, architecture.scale
        self.agent_input, self.lane_input = nn.Linear(7 * past, width), nn.Linear(5 * points, width)
        self.agent_places = Tokens(agents, width=width)
        nn.init.zeros_(self.agent_places.table.weight)
        heading = past + 12  # its column, `features.py`
        self.register_buffer("agent_columns", torch.tensor([0, 1, *range(heading, heading + 4)]), persistent=False)
        self.register_buffer("lane_columns", torch.tensor([0, 1, 3, 4]), persistent=False)
        units = torch.tensor([scale, scale, 1, 1, scale, scale])
        self.register_buffer("agent_units", units, persistent=False)
        self.register_buffer("lane_units", units[:4], persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        agents, agents_there = _whole(batch["agents"], batch["agents_valid"], self.agent_columns, self.agent_units)
        lanes, lanes_there = _whole(batch["lanes"], batch["lanes_valid"], self.lane_columns, self.lane_units)
        tokens = functional.selu(exact(self.agent_input, agents)) + self.agent_places(len(agents))
        tokens = torch.cat([tokens, functional.selu(exact(self.lane_input, lanes))], 1)
        there = attendable(torch.cat([agents_there, lanes_there], 1))
        return tokens, bias_of(there)[:, None, None]


def _whole(x: Tensor, valid: Tensor, columns: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """Objects [B, N, T, D] -> some columns of all their steps, and which are valid, in a row [B, N, ...]; and which
    objects are there at all, bool [B, N]."""
    x = zeroed(x[..., columns] / units, valid)
    return torch.cat([x, valid[..., None].to(x.dtype)], -1).flatten(2), valid.any(-1)
