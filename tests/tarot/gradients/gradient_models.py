"""Small models that between them use every kind of layer, and every odd way to use one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Case:
    """A model, a batch for it, and which of its parameters may take the slow path."""

    model: Callable[[], nn.Module]
    batch: Callable[[], Tensor]
    slow: tuple[str, ...] = ()


class Net(nn.Module):
    """Modules by name and how they are put together."""

    def __init__(self, together: Callable[[Net, Tensor], Tensor], **members: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.together = together
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, x: Tensor) -> Tensor:
        return self.together(self, x)


def losses(model: nn.Module, batch: Tensor) -> Tensor:
    """A nonlinear function of all outputs, each with another weight."""
    y = model(batch).flatten(1)
    return (torch.sin(y + torch.arange(y.shape[1])) * torch.linspace(0.5, 1.5, y.shape[1])).sum(1)


def normal(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(*shape)


def ids(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(0, 7, shape)


def with_statistics(norm: nn.Module) -> nn.Module:
    """Running statistics and affine parameters as after training."""
    for name, tensor in [*norm.named_buffers(), *norm.named_parameters()]:
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0) if "var" in name or "weight" in name else nn.init.normal_(tensor)
    return norm


class Scaled(nn.Linear):
    """A subclass whose forward is not that of its parent."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x.roll(1, -1))


class Doubled(nn.Linear):
    """Reads half as many numbers as its class says."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cat([x, -x.sin()], -1))


class WithExtras(nn.Linear):
    """Reads its input second and writes a pair."""

    def forward(self, scale: float, x: Tensor) -> tuple[Tensor, None]:
        return super().forward(scale * x), None


class Causal(nn.Conv1d):
    """Pads by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (2, 0)))


class ChannelNorm(nn.LayerNorm):
    """Normalises dimension 1, as ConvNeXt does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def attend(**options: object) -> Callable[[Net, Tensor], Tensor]:
    return lambda m, x: m.a(x, x, x, **options)[0]


def cross_attend(m: Net, x: Tensor) -> Tensor:
    memory = torch.stack([x[..., 0], x[..., 1].cos(), x[..., 2] ** 2], -1)
    return m.a(x, memory, x[..., :2].sin())[0]


def masked_attend(m: Net, x: Tensor) -> Tensor:
    batch, length = x.shape[:2]
    padding = torch.zeros(batch, length, dtype=torch.bool)
    padding[:, -1] = True
    causal = nn.Transformer.generate_square_subsequent_mask(length)
    per_head = torch.arange(length**2).cos().view(length, length).expand(batch * 2, -1, -1)
    first, _ = m.a(x, x, x, key_padding_mask=padding, attn_mask=causal.isinf())
    second, weights = m.a(first, first, x, attn_mask=per_head, average_attn_weights=False)
    third, _ = m.a(second, second, second, attn_mask=causal, is_causal=True, need_weights=False)
    return third + weights.mean((1, 3))[..., None]


def encode(m: Net, x: Tensor) -> Tensor:
    padding = torch.zeros(x.shape[:2], dtype=torch.bool)
    padding[:, -1] = True
    return m.t(x, src_key_padding_mask=padding)


def in_place(m: Net, x: Tensor) -> Tensor:
    y = m.a(x).relu_()
    y = m.b(y).add_(1)
    return m.c(y).mul_(2).relu_()


def tokens(m: Net, x: Tensor) -> Tensor:
    h = m.e(x) + m.p(torch.arange(x.shape[1]))
    return m.l(h)


def routed(m: Net, x: Tensor) -> Tensor:
    """Only tokens whose first feature is positive are seen by the expert."""
    chosen = x[..., 0] > 0
    y = x.clone()
    y[chosen] = m.e(x[chosen])
    return y


def time_major_rows(m: Net, x: Tensor) -> Tensor:
    b, t, d = x.shape
    return m.l(x.transpose(0, 1).reshape(t * b, d)).view(t, b, -1).transpose(0, 1)


def attention(**options: object) -> nn.Module:
    layer = nn.MultiheadAttention(6, 2, **options)
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    return layer


def conv(*arguments: int, **options: object) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(*arguments, **options)


IMAGES, SEQUENCES, SIGNALS = normal(4, 4, 7, 8), normal(4, 5, 6), normal(4, 4, 11)

CASES: dict[str, Case] = {
    "linear on vectors": Case(lambda: nn.Linear(6, 3), normal(4, 6)),
    "linear without bias": Case(lambda: nn.Linear(6, 3, bias=False), normal(4, 6)),
    "linear on sequences": Case(lambda: nn.Linear(6, 3), SEQUENCES),
    "linear on grids": Case(lambda: nn.Linear(6, 3), normal(4, 2, 3, 6)),
    "linear subclass": Case(lambda: nn.modules.linear.NonDynamicallyQuantizableLinear(6, 3), SEQUENCES),
    "linear subclass with its own forward": Case(lambda: Scaled(6, 3), SEQUENCES),
    "linear subclass that reads fewer numbers": Case(lambda: Doubled(12, 3), SEQUENCES),
    "linear subclass of another signature": Case(
        lambda: Net(lambda m, x: m.a(2.0, x)[0], a=WithExtras(6, 3)), SEQUENCES
    ),
    "conv1d": Case(lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), SIGNALS),
    "conv1d same": Case(lambda: nn.Conv1d(4, 6, 4, padding="same", padding_mode="circular"), SIGNALS),
    "conv1d depthwise": Case(lambda: nn.Conv1d(4, 8, 3, groups=4), SIGNALS),
    "conv1d subclass that pads": Case(lambda: Causal(4, 6, 3), SIGNALS),
    "conv2d": Case(conv(4, 6, 3), IMAGES),
    "conv2d channels last": Case(conv(4, 6, 3), lambda: IMAGES().to(memory_format=torch.channels_last)),
    "conv2d 1x1": Case(conv(4, 6, 1, bias=False), IMAGES),
    "conv2d stride": Case(conv(4, 6, (3, 2), stride=(2, 3), padding=(1, 2)), IMAGES),
    "conv2d dilation": Case(conv(4, 6, 3, dilation=(2, 1), padding=2, stride=2), IMAGES),
    "conv2d groups": Case(conv(4, 6, 3, groups=2, padding=1), IMAGES),
    "conv2d depthwise": Case(conv(4, 4, 3, groups=4, padding=1), IMAGES),
    "conv2d same": Case(conv(4, 6, (4, 3), padding="same", dilation=(1, 2)), IMAGES),
    "conv2d valid": Case(conv(4, 6, 3, padding="valid", stride=2), IMAGES),
    "conv2d reflect": Case(conv(4, 6, 3, padding=(2, 1), padding_mode="reflect"), IMAGES),
    "conv2d replicate same": Case(conv(4, 6, (2, 3), padding="same", padding_mode="replicate"), IMAGES),
    "conv3d": Case(lambda: nn.Conv3d(2, 4, 3, padding=1, groups=2), normal(4, 2, 3, 4, 5)),
    "transposed convolution": Case(lambda: nn.ConvTranspose2d(4, 3, 3), IMAGES),
    "transposed convolution, strided": Case(
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2), IMAGES
    ),
    "transposed convolution 1d": Case(lambda: nn.ConvTranspose1d(4, 6, 4, stride=3, bias=False), SIGNALS),
    "transposed convolution 3d": Case(lambda: nn.ConvTranspose3d(2, 3, 2, padding=1), normal(4, 2, 3, 4, 5)),
    "embedding": Case(lambda: nn.Embedding(7, 5), ids(4, 6)),
    "embedding with padding": Case(lambda: nn.Embedding(7, 5, padding_idx=2), ids(4, 6)),
    "embedding of one id": Case(lambda: nn.Embedding(7, 5), ids(4)),
    "embedding by frequency": Case(lambda: nn.Embedding(7, 5, scale_grad_by_freq=True), ids(4, 6), ("weight",)),
    "sparse embedding": Case(lambda: nn.Embedding(7, 5, sparse=True), ids(4, 6)),
    "batch norm 1d": Case(lambda: with_statistics(nn.BatchNorm1d(6)), normal(4, 6)),
    "batch norm 1d on signals": Case(lambda: with_statistics(nn.BatchNorm1d(4)), SIGNALS),
    "batch norm 2d": Case(lambda: with_statistics(nn.BatchNorm2d(4)), IMAGES),
    "batch norm of many devices": Case(lambda: with_statistics(nn.SyncBatchNorm(4)), IMAGES),
    "layer norm of channels": Case(lambda: with_statistics(ChannelNorm(4)), IMAGES),
    "layer norm of as many channels as columns": Case(lambda: with_statistics(ChannelNorm(4)), normal(4, 4, 4, 4)),
    "layer norm": Case(lambda: with_statistics(nn.LayerNorm(6)), SEQUENCES),
    "layer norm over two dimensions": Case(lambda: with_statistics(nn.LayerNorm((5, 6))), SEQUENCES),
    "rms norm": Case(lambda: with_statistics(nn.RMSNorm(6)), SEQUENCES),
    "group norm": Case(lambda: with_statistics(nn.GroupNorm(2, 4)), IMAGES),
    "instance norm": Case(lambda: with_statistics(nn.InstanceNorm2d(4, affine=True)), IMAGES),
    "instance norm with statistics": Case(
        lambda: with_statistics(nn.InstanceNorm1d(4, affine=True, track_running_stats=True)), SIGNALS
    ),
    "attention": Case(lambda: Net(attend(), a=attention(batch_first=True)), SEQUENCES),
    "attention, time first": Case(
        lambda: Net(lambda m, x: attend()(m, x.transpose(0, 1)).transpose(0, 1), a=attention()), SEQUENCES
    ),
    "attention, as many steps as samples": Case(
        lambda: Net(lambda m, x: attend()(m, x.transpose(0, 1)).transpose(0, 1), a=attention()), normal(2, 2, 6)
    ),
    "attention without weights": Case(
        lambda: Net(attend(need_weights=False), a=attention(batch_first=True, bias=False)), SEQUENCES
    ),
    "attention with masks": Case(lambda: Net(masked_attend, a=attention(batch_first=True)), SEQUENCES),
    "cross attention": Case(
        lambda: Net(cross_attend, a=attention(batch_first=True, kdim=3, vdim=2)),
        SEQUENCES,
    ),
    "attention with learned keys": Case(
        lambda: Net(attend(), a=attention(batch_first=True, add_bias_kv=True)),
        SEQUENCES,
        ("a.in_proj_weight", "a.in_proj_bias", "a.bias_k", "a.bias_v", "a.out_proj.weight", "a.out_proj.bias"),
    ),
    "transformer encoder": Case(
        lambda: Net(encode, t=nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 2)),
        SEQUENCES,
    ),
    "transformer encoder, norm first": Case(
        lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True), SEQUENCES
    ),
    "transformer encoder, time first": Case(
        lambda: Net(lambda m, x: m.t(x.transpose(0, 1)).transpose(0, 1), t=nn.TransformerEncoderLayer(6, 2, 8)),
        SEQUENCES,
    ),
    "transformer decoder": Case(
        lambda: Net(lambda m, x: m.t(x, x.flip(1)), t=nn.TransformerDecoderLayer(6, 2, 8, batch_first=True)), SEQUENCES
    ),
    "called twice": Case(lambda: Net(lambda m, x: m.a(m.a(x).tanh()), a=nn.Linear(6, 6)), SEQUENCES),
    "tied embedding": Case(lambda: tied(), ids(4, 6)),
    "weight used outside its module": Case(
        lambda: Net(lambda m, x: functional.linear(m.e(x), m.e.weight), e=nn.Embedding(7, 5)), ids(4, 6)
    ),
    "weight used inside its module and outside": Case(
        lambda: Net(lambda m, x: m.a(x) + 0.1 * functional.linear(x.relu(), m.a.weight, m.a.bias), a=nn.Linear(6, 3)),
        SEQUENCES,
    ),
    "linear layers with one weight": Case(lambda: one_weight(), SEQUENCES),
    "called for each sample": Case(
        lambda: Net(lambda m, x: torch.stack([m.l(row) for row in x]), l=nn.Linear(6, 3)),
        normal(4, 4, 6),
        ("l.weight", "l.bias"),
    ),
    "called without gradients": Case(
        lambda: Net(lambda m, x: m.a(x) * m.a(x).detach() * quietly(m.b, x), a=nn.Linear(6, 3), b=nn.Linear(6, 3)),
        SEQUENCES,
    ),
    "bare parameter": Case(
        lambda: Net(lambda m, x: m.a(x) * m.s + m.s**2, a=nn.Linear(6, 3), s=nn.Parameter(torch.randn(5, 3))),
        SEQUENCES,
    ),
    "position embedding": Case(
        lambda: Net(tokens, e=nn.Embedding(7, 4), p=nn.Embedding(6, 4), l=nn.Linear(4, 3)), ids(4, 6)
    ),
    "recurrent": Case(
        lambda: Net(lambda m, x: m.g(x)[0], g=nn.GRU(6, 3, batch_first=True)),
        SEQUENCES,
        ("g.weight_ih_l0", "g.weight_hh_l0", "g.bias_ih_l0", "g.bias_hh_l0"),
    ),
    "prelu": Case(lambda: nn.Sequential(nn.Linear(6, 4), nn.PReLU(4), nn.Linear(4, 2)), normal(4, 6)),
    "embedding bag": Case(lambda: nn.EmbeddingBag(7, 5), ids(4, 6), ("weight",)),
    "weight norm": Case(
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)),
        SEQUENCES,
    ),
    "in place": Case(
        lambda: Net(in_place, a=nn.Linear(6, 6), b=with_statistics(nn.LayerNorm(6)), c=nn.Linear(6, 4)), SEQUENCES
    ),
    "in place convolutions": Case(
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3),
            with_statistics(nn.BatchNorm2d(6)),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 3, 3),
            nn.ReLU(inplace=True),
        ),
        IMAGES,
    ),
    "rows of all samples, sample first": Case(
        lambda: Net(lambda m, x: m.l(x.reshape(-1, 6)).view(*x.shape[:2], -1), l=nn.Linear(6, 3)), SEQUENCES
    ),
    "rows of all samples, time first": Case(
        lambda: Net(time_major_rows, l=nn.Linear(6, 3)), SEQUENCES, ("l.weight", "l.bias")
    ),
    "frames of all samples": Case(
        lambda: Net(
            lambda m, x: m.n(m.c(x.flatten(0, 1))).unflatten(0, x.shape[:2]),
            c=nn.Conv2d(2, 3, 3),
            n=with_statistics(nn.GroupNorm(1, 3)),
        ),
        normal(4, 3, 2, 5, 5),
    ),
    "unused": Case(lambda: Net(lambda m, x: m.a(x), a=nn.Linear(6, 3), b=nn.Linear(6, 3)), SEQUENCES),
    "checkpointed": Case(
        lambda: Net(
            lambda m, x: m.b(torch.utils.checkpoint.checkpoint(m.a, x, use_reentrant=False)).tanh(),
            a=nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)),
            b=nn.Linear(6, 3),
        ),
        SEQUENCES,
    ),
}


def quietly(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return module(x)


def one_weight() -> nn.Module:
    model = Net(lambda m, x: m.b(m.a(x).tanh()), a=nn.Linear(6, 6), b=nn.Linear(6, 6))
    model.b.weight = model.a.weight
    return model


def tied() -> nn.Module:
    model = Net(lambda m, x: m.out(m.e(x).tanh()), e=nn.Embedding(7, 5), out=nn.Linear(5, 7))
    model.out.weight = model.e.weight
    return model
