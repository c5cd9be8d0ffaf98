"""The encoders beside the default one, with the interface of `encoders.ConvEncoder`, for comparison and for choice."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_POOLED_CHANNELS = (16, 32)
_KERNEL = 3


class GruEncoder(nn.Module):
    """Layers of gated recurrent units (Cho et al. 2014; for sessions: Hidasi et al. 2016), then a layer norm."""

    def __init__(self, dim: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.GRU(dim, dim, num_layers=blocks, dropout=dropout if blocks > 1 else 0.0, batch_first=True)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.dropout(self.layers(x)[0]))  # type: ignore[no-any-return]

    def at(self, x: Tensor, last: Tensor) -> Tensor:
        """(B, d): the states forward(x)[b, last[b]]."""
        states = self.layers(x)[0][torch.arange(len(x)), last]
        return self.norm(self.dropout(states))  # type: ignore[no-any-return]


class ConvPoolEncoder(nn.Module):
    """The textbook network: a history as an image of one channel, (L, d), to 16 and to 32 channels, ReLU, max-pooling.

    Convolutions are causal in time, and pool pairs of dimensions; then the maximum over all positions so far is taken,
    channel by channel, and mapped to (d). blocks: convolutions of 32 channels after the first one.
    """

    def __init__(self, dim: int, blocks: int, dropout: float) -> None:
        super().__init__()
        first, second = _POOLED_CHANNELS
        self.first = nn.Conv2d(1, first, _KERNEL)
        widths = [first, *[second] * blocks]
        self.others = nn.ModuleList(nn.Conv2d(low, high, _KERNEL) for low, high in itertools.pairwise(widths))
        self.out = nn.Linear(second * (dim // 4), dim)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self._out(torch.cummax(self._maps(x), dim=1).values)

    def at(self, x: Tensor, last: Tensor) -> Tensor:
        """(B, d): the states forward(x)[b, last[b]]."""
        maps = self._maps(x)
        later = torch.arange(maps.shape[1]) > last[:, None]
        return self._out(maps.masked_fill(later[..., None], -torch.inf).amax(1))

    def _maps(self, x: Tensor) -> Tensor:
        """(B, L, 32 * d / 4)"""
        maps = _pooled_relu(self.first(_before(x[:, None])))
        for n, convolution in enumerate(self.others):
            maps = convolution(_before(maps))
            maps = _pooled_relu(maps) if n == 0 else F.relu(maps)
        return maps.permute(0, 2, 1, 3).flatten(2)

    def _out(self, pooled: Tensor) -> Tensor:
        return self.norm(self.dropout(self.out(pooled)))  # type: ignore[no-any-return]


def _pooled_relu(x: Tensor) -> Tensor:
    """relu, then the larger of two neighbours of the last dimension, of which there is an even number.

    torch's pooling of pairs takes as long on a CPU as the convolution before it.
    """
    return _PooledRelu.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class _PooledRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        even, odd = x[..., ::2], x[..., 1::2]
        out = torch.maximum(even, odd).relu_()
        ctx.save_for_backward(out, even >= odd)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        out, even = ctx.saved_tensors
        gradient = torch.where(out > 0, grad_outputs[0], 0.0)
        pairs = gradient.new_empty(*gradient.shape, 2)
        torch.mul(gradient, even, out=pairs[..., 0])
        torch.sub(gradient, pairs[..., 0], out=pairs[..., 1])
        return pairs.flatten(-2)


def _before(maps: Tensor) -> Tensor:
    """Zeros before the first position, so that a convolution sees no later one, and on both sides of the dimensions."""
    return F.pad(maps, (_KERNEL // 2, _KERNEL // 2, _KERNEL - 1, 0))
