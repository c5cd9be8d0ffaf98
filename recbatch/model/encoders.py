"""The sequence encoder of the default model: gated residual blocks of causal depthwise convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def causal_convolution(x: Tensor, toeplitz: Tensor) -> Tensor:
    """y[c, t, b] = Σ_lag kernel[c, lag] x[c, t - lag, b]; x (d, L, B), toeplitz (d, L, L) of the kernel.

    A product of matrices: on a CPU a depthwise Conv1d with a wide kernel takes ten times as long.
    """
    return torch.bmm(toeplitz, x)


def toeplitz_matrices(kernel: Tensor, length: int) -> Tensor:
    """(d, L, L): [c, t, s] is kernel[c, t - s], zero outside of the kernel (d, K)."""
    steps = torch.arange(length)
    lag = steps[:, None] - steps  # (L, L), negative in the future
    inside = (lag >= 0) & (lag < kernel.shape[1])
    return kernel[:, lag.clamp(0, kernel.shape[1] - 1)] * inside


class ConvBlock(nn.Module):
    """y = norm(x + W_o(long * (W_v x) ⊙ silu(short * (W_g x)))), then norm(y + feed-forward(y)).

    Normalised after the sum: on sparse logs it ranks better than before it (docs/quality.md). States are (L, B, d)
    here: what the convolutions take, (d, L, B), is then a product with a transposed operand, and nothing is moved in
    memory.
    """

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
        self._made: dict[int, Tensor] = {}
        self._made_of: tuple[int, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        length, users, dim = x.shape
        h = x.reshape(-1, dim)
        value_gate = torch.addmm(self.value_gate.bias[:, None], self.value_gate.weight, h.t())  # (2 d, L B)
        value, gate = causal_convolution(value_gate.view(-1, length, users), self._toeplitz(length)).chunk(2)
        mixed = (value * F.silu(gate)).view(dim, -1).t()
        return self._feed(self.norm_mix(x + self.dropout(self.out(mixed).view_as(x))))

    def at(self, x: Tensor, last: Tensor) -> Tensor:
        """(B, d): forward(x)[last[b], b], without what the other positions would cost."""
        value_weight, gate_weight = self.value_gate.weight.chunk(2)
        value_bias, gate_bias = self.value_gate.bias.chunk(2)
        users = torch.arange(x.shape[1])
        value = F.linear(x, value_weight, value_bias)
        reach = last - torch.arange(self.short.shape[1])[:, None]  # (K, B)
        gate = F.linear(x[reach.clamp(min=0), users], gate_weight, gate_bias)
        short = (gate * self.short.t()[:, None] * (reach >= 0)[..., None]).sum(0)
        lag = last - torch.arange(len(x))[:, None]  # (L, B), negative after the last position
        long = (value * self.long.t()[lag.clamp(min=0)] * (lag >= 0)[..., None]).sum(0)
        return self._feed(self.norm_mix(x[last, users] + self.dropout(self.out(long * F.silu(short)))))

    def _feed(self, x: Tensor) -> Tensor:
        fed = self.narrow(F.silu(self.widen(x)))
        return self.norm_feed(x + self.dropout(fed))  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> ConvBlock:
        """As of any module; what was made of the kernels is forgotten, for fused optimisers change them unnoticed."""
        if mode != self.training:
            self._made.clear()
        return super().train(mode)

    def _toeplitz(self, length: int) -> Tensor:
        """(2 d, L, L) of both kernels; kept while no gradient is wanted and nothing has changed the kernels."""
        if torch.is_grad_enabled():
            return torch.cat([toeplitz_matrices(self.long, length), toeplitz_matrices(self.short, length)])
        versions = (self.long._version, self.short._version)
        if versions != self._made_of:
            self._made.clear()
            self._made_of = versions
        if length not in self._made:
            both = [toeplitz_matrices(self.long, length), toeplitz_matrices(self.short, length)]
            self._made[length] = torch.cat(both)
        return self._made[length]


class ConvEncoder(nn.Module):
    """(B, L, d) behaviours to (B, L, d) states; a state depends on its own and earlier positions only.

    So padding on the right never reaches a real position, and no position embedding is needed.
    """

    def __init__(self, dim: int, blocks: int, context_length: int, short_kernel: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ConvBlock(dim, context_length, short_kernel, dropout) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x.transpose(0, 1).contiguous()).transpose(0, 1)  # type: ignore[no-any-return]

    def at(self, x: Tensor, last: Tensor) -> Tensor:
        """(B, d): the states forward(x)[b, last[b]]; the last block computes no other position."""
        *earlier, final = self.blocks
        states = x.transpose(0, 1).contiguous()
        for block in earlier:
            states = block(states)
        return final.at(states, last)  # type: ignore[no-any-return, operator]
