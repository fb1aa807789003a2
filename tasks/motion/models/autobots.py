"""AutoBot-Ego (Girgis et al., ICLR 2022): a small forecaster that sees nothing but where agents and lanes are.

Attention over time and over agents in turn gives what the target's steps mean; learned seeds, one per future and step,
look at those and at the lanes, and become trajectories.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from tarot import InputError
from tarot.common import Count, Positive, Share, check_options
from tasks.motion.models.layers import Attention, PooledAttention, Tokens, attendable, bias_of, exact, zeroed
from tasks.motion.models.prediction import Prediction

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class AutoBotArchitecture:
    """The paper's by default, 1,504,006 parameters with 60 future steps. `MINI_AUTOBOT` is for CPUs.

    heads: of attention, and `map_heads` of that over the points of a lane. feedforward: width inside the layers.
    floor: the least scale of an error, and `scale` the length that positions are measured in, in metres. The floor is
        measured in `scale`, too.
    """

    width: Count = 128
    heads: Count = 16
    map_heads: Count = 8
    feedforward: Count = 384
    encoder_layers: Count = 2
    decoder_layers: Count = 2
    modes: Count = 6
    dropout: Share = 0.1
    map_dropout: Share = 0.3
    floor: Positive = 0.01
    scale: Positive = 1.0

    def __post_init__(self) -> None:
        check_options(self, "architecture")
        if self.width % self.heads or self.width % self.map_heads or self.width % 2:
            raise InputError(
                f"an AutoBot's width must be even and a multiple of its heads: {self.width}, {self.heads}, "
                f"{self.map_heads} heads for the map"
            )

    def recipe(self) -> dict[str, object]:
        """What determines the model, as plain data."""
        return {"kind": "autobot", **asdict(self)}

    def build(self, past: int, future: int) -> AutoBot:
        """For so many steps of the past, the present included, and of the future; any number of agents and lanes."""
        return AutoBot(self, past, future)


MINI_AUTOBOT = AutoBotArchitecture(
    width=48, heads=4, map_heads=4, feedforward=96, encoder_layers=1, decoder_layers=1, floor=0.05, scale=10.0,
    dropout=0.0, map_dropout=0.0,
)  # fmt: skip


class AutoBot(nn.Module):
    """batch -> `Prediction`. It reads x and y of `agents` and `lanes`, and what of them is valid."""

    positions: Tensor
    causal: Tensor

    def __init__(self, architecture: AutoBotArchitecture, past: int, future: int) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.agent_input, self.point_input = nn.Linear(2, a.width), nn.Linear(2, a.width)
        self.temporal, self.social = (
            nn.ModuleList(EncoderLayer(a.width, a.heads, a.feedforward, a.dropout) for _ in range(a.encoder_layers))
            for _ in range(2)
        )
        self.register_buffer("positions", sinusoids(past, a.width))

        self.point_attention = PooledAttention(a.width, a.map_heads, a.dropout)
        self.lane_norm, self.lane_output_norm = nn.LayerNorm(a.width), nn.LayerNorm(a.width)
        self.lane_net = perceptron(a.width, a.width, a.width, dropout=a.dropout)

        self.queries = Tokens(a.modes, future, width=a.width)
        self.map_attention = Attention(a.width, a.heads, a.map_dropout)
        self.decoder = nn.ModuleList(
            DecoderLayer(a.width, a.heads, a.feedforward, a.dropout) for _ in range(a.decoder_layers)
        )
        self.register_buffer("causal", bias_of(torch.ones(future, future).tril().bool()), persistent=False)
        self.head = perceptron(a.width, a.width, a.width, 5)

        self.mode_queries = Tokens(a.modes, width=a.width)
        self.mode_attention = Attention(a.width, a.heads, a.dropout)
        self.mode_map_attention = Attention(a.width, a.heads, a.dropout)
        self.mode_output = nn.Linear(a.width, 1)
        for part in self.agent_input, self.point_input, self.lane_net, self.head, self.mode_output:
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_normal_(module.weight, gain=math.sqrt(2))
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.queries.table.weight.view(future, 1, a.modes, a.width))
        nn.init.xavier_uniform_(self.mode_queries.table.weight.view(a.modes, 1, a.width))

    def forward(self, batch: Batch) -> Prediction:
        return self._told(*self._decoded(batch))

    def embeddings(self, batch: Batch) -> Tensor:
        """What the head is given, averaged over futures and steps, [B, width]."""
        return self._decoded(batch)[0].mean((1, 2))

    def _decoded(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What each step of each future is told from [B, K, F, d], and each future's logit [B, K]."""
        ego, ego_bias = self._encoded(batch["agents"], batch["agents_valid"])
        lanes, lane_bias = self._lanes(batch["lanes"], batch["lanes_valid"], ego[:, -1])
        steps = self.queries(len(ego))
        memory = self.map_attention.remember(lanes)
        for layer in self.decoder:
            steps = steps + self.map_attention(steps.flatten(1, 2), memory, lane_bias).view_as(steps)
            steps = layer(steps, self.causal, ego, ego_bias)
        modes = self.mode_attention(self.mode_queries(len(ego)), ego)
        modes = modes + self.mode_map_attention(modes, lanes, lane_bias)
        return steps, exact(self.mode_output, modes).squeeze(-1)

    def _encoded(self, agents: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The target's steps [B, P, d], and the bias of those that are valid [B, 1, 1, P].

        The target is there twice: once as itself, all of it, and once as one of the agents.
        """
        x = zeroed(agents[..., :2] / self.architecture.scale, valid)
        x = exact(self.agent_input, torch.cat([x[:, :1], x], 1))
        present = torch.cat([torch.ones_like(valid[:, :1]), valid], 1)  # [B, N, P]
        in_time = bias_of(attendable(present))[:, :, None, None]  # [B, N, 1, 1, P]
        among_agents = bias_of(present.transpose(1, 2))[:, :, None, None]  # [B, P, 1, 1, N]
        for i, (temporal, social) in enumerate(zip(self.temporal, self.social, strict=True)):
            x = temporal(*[x + self.positions] * 2, in_time)
            x = x.transpose(1, 2)
            asking = x[:, :, :1] if i == len(self.social) - 1 else x  # of the last layer nobody reads the others
            x = social(asking, x, among_agents).transpose(1, 2)
        return x[:, 0], bias_of(attendable(valid[:, 0]))[:, None, None]

    def _lanes(self, lanes: Tensor, valid: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
        """What each lane means to the target [B, S, d], and the bias of those that are there [B, 1, 1, S]."""
        points = exact(self.point_input, zeroed(lanes[..., :2] / self.architecture.scale, valid))
        lane = self.lane_norm(self.point_attention(now, points, bias_of(attendable(valid))))
        lane = self.lane_output_norm(lane + self.lane_net(lane))
        # Where there are no lanes, zeros stand in for them, rather than normed zeros with their enormous gradients.
        there = valid.any(-1)
        return zeroed(lane, there), bias_of(attendable(there))[:, None, None]

    def _told(self, steps: Tensor, logits: Tensor) -> Prediction:
        a, raw = self.architecture, exact(self.head, steps)
        scales = nn.functional.softplus(raw[..., 2:4]) + a.floor
        metres = torch.cat([raw[..., :2], scales], -1) * a.scale
        return Prediction(torch.cat([metres, 0.9 * torch.tanh(raw[..., 4:])], -1), logits)


class EncoderLayer(nn.Module):
    """Attention, then a perceptron, each with a way around it and a norm after it."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.net = perceptron(width, feedforward, width, dropout=dropout)
        self.norm, self.output_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        x = self.norm(x + self.drop(self.attention(x, memory, bias)))
        return self.output_norm(x + self.drop(self.net(x)))


class DecoderLayer(nn.Module):
    """Steps [B, K, F, d] look back at their own future's and then at the memory [B, S, d], and at nothing else."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.own, self.cross = Attention(width, heads, dropout), Attention(width, heads, dropout)
        self.net = perceptron(width, feedforward, width, dropout=dropout)
        self.own_norm, self.cross_norm, self.output_norm = (nn.LayerNorm(width) for _ in range(3))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, causal: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        x = self.own_norm(x + self.drop(self.own(x, x, causal)))
        x = self.cross_norm(x + self.drop(self.cross(x.flatten(1, 2), memory, bias).view_as(x)))
        return self.output_norm(x + self.drop(self.net(x)))


def perceptron(*widths: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU, and dropout where there is any, between them."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths)):
        if i:
            layers += [nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear(before, after))
    return nn.Sequential(*layers)


def sinusoids(length: int, width: int) -> Tensor:
    """Vaswani et al.'s encoding of positions, [length, width]: sine and cosine in turn."""
    frequencies = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
