"""The sequence encoder: gated residual blocks of causal depthwise convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def causal_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    """y[b, t, c] = Σ_lag kernel[c, lag] x[b, t - lag, c]; x (B, L, d), kernel (d, K).

    Written as one product with the (d, L, L) Toeplitz matrix of the kernel: on a CPU a depthwise Conv1d with a wide
    kernel takes ten times as long.
    """
    return _convolve(x, _toeplitz(kernel, x.shape[1]))


def _toeplitz(kernel: Tensor, length: int) -> Tensor:
    """(d, L, L): [c, t, s] is kernel[c, t - s], zero outside of the kernel."""
    steps = torch.arange(length)
    lag = steps[:, None] - steps  # (L, L), negative in the future
    inside = (lag >= 0) & (lag < kernel.shape[1])
    return kernel[:, lag.clamp(0, kernel.shape[1] - 1)] * inside


def _convolve(x: Tensor, toeplitz: Tensor) -> Tensor:
    return torch.bmm(toeplitz, x.permute(2, 1, 0)).permute(2, 1, 0)  # (d, L, B) -> (B, L, d)


class ConvBlock(nn.Module):
    """x + W_o(long * (W_v h) ⊙ silu(short * (W_g h))), then x + feed-forward(h); h = layer norm of x."""

    def __init__(self, dim: int, context_length: int, short_kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm_mix, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.value_gate = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.widen, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        # Channels start as moving averages over all time scales from the last behaviour to the whole context.
        scale = torch.logspace(0, 1, dim, base=context_length)[:, None]  # (d, 1) behaviours
        decay = torch.exp(-torch.arange(context_length) / scale)
        self.long = nn.Parameter(decay / decay.sum(1, keepdim=True))
        self.short = nn.Parameter(torch.empty(dim, short_kernel).uniform_(-1, 1) * short_kernel**-0.5)
        self.dropout = nn.Dropout(dropout)
        self._made: dict[int, tuple[Tensor, Tensor]] = {}
        self._made_of: tuple[int, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.value_gate(self.norm_mix(x)).chunk(2, dim=-1)
        long, short = self._toeplitz(x.shape[1])
        mixed = _convolve(value, long) * F.silu(_convolve(gate, short))
        x = x + self.dropout(self.out(mixed))
        x = x + self.dropout(self.narrow(F.silu(self.widen(self.norm_feed(x)))))
        return x

    def _toeplitz(self, length: int) -> tuple[Tensor, Tensor]:
        """Both kernels' matrices; kept while no gradient is wanted and no step has changed the kernels."""
        if torch.is_grad_enabled():
            return _toeplitz(self.long, length), _toeplitz(self.short, length)
        versions = (self.long._version, self.short._version)
        if versions != self._made_of:
            self._made.clear()
            self._made_of = versions
        if length not in self._made:
            self._made[length] = _toeplitz(self.long, length), _toeplitz(self.short, length)
        return self._made[length]

    def at(self, x: Tensor, last: Tensor) -> Tensor:
        """(B, d): forward(x)[b, last[b]], without what the other positions would cost."""
        value_weight, gate_weight = self.value_gate.weight.chunk(2)
        value_bias, gate_bias = self.value_gate.bias.chunk(2)
        rows = torch.arange(len(x))
        h = self.norm_mix(x)
        value = F.linear(h, value_weight, value_bias)
        reach = last[:, None] - torch.arange(self.short.shape[1])  # (B, K)
        gate = F.linear(h[rows[:, None], reach.clamp(min=0)], gate_weight, gate_bias)
        short = (gate * self.short.t() * (reach >= 0)[..., None]).sum(1)
        lag = last[:, None] - torch.arange(x.shape[1])  # (B, L), negative after the last position
        long = (value * self.long.t()[lag.clamp(min=0)] * (lag >= 0)[..., None]).sum(1)
        y = x[rows, last] + self.dropout(self.out(long * F.silu(short)))
        return y + self.dropout(self.narrow(F.silu(self.widen(self.norm_feed(y)))))  # type: ignore[no-any-return]


class ConvEncoder(nn.Module):
    """(B, L, d) behaviours to (B, L, d) states; a state depends on its own and earlier positions only.

    So padding on the right never reaches a real position, and no position embedding is needed.
    """

    def __init__(self, dim: int, blocks: int, context_length: int, short_kernel: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ConvBlock(dim, context_length, short_kernel, dropout) for _ in range(blocks)))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(x))  # type: ignore[no-any-return]

    def at(self, x: Tensor, last: Tensor) -> Tensor:
        """(B, d): the states forward(x)[b, last[b]]; the last block computes no other position."""
        *earlier, final = self.blocks
        for block in earlier:
            x = block(x)
        return self.norm(final.at(x, last))  # type: ignore[no-any-return, operator]
