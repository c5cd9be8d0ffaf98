"""Which number type this machine multiplies fastest, measured once a process; processor names say too little."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

from recbatch.ranking.screen import Arithmetic, multiply_into, narrow

_USERS, _ITEMS, _REPEATS = 128, 2048, 5
_WORTH = 1.15  # a narrower type leaves more to score again


@cache
def fastest(dim: int) -> Arithmetic:
    """The arithmetic for vectors of `dim` numbers, on the threads that torch has here: takes some 10 ms.

    A type that this build of torch does not multiply, or multiplies wrongly (int8 saturates in 16 bits on processors
    without a dot product of its own), is left out.
    """
    seconds = {kind: _seconds(kind, dim) for kind in Arithmetic}
    best = min(seconds, key=lambda kind: seconds[kind])
    return best if seconds[best] * _WORTH < seconds[Arithmetic.FLOAT32] else Arithmetic.FLOAT32


def _seconds(kind: Arithmetic, dim: int) -> float:
    if kind is Arithmetic.INT8 and not _multiplies_int8(dim):
        return float("inf")
    values = torch.linspace(-1, 1, _ITEMS * dim).view(_ITEMS, dim)  # not drawn: the state of torch's generator stays
    users, items = narrow(values[:_USERS], kind).rows, narrow(values, kind).rows
    products = torch.empty(_USERS * _ITEMS, dtype=torch.int32 if kind is Arithmetic.INT8 else torch.float32)
    second = torch.empty(_USERS * _ITEMS, dtype=torch.bfloat16) if kind is Arithmetic.BFLOAT16 else None
    work: Callable[[], torch.Tensor] = lambda: multiply_into(users, items, products, second)  # noqa: E731
    work()
    shortest = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        shortest = min(shortest, time.perf_counter() - began)
    return shortest


def _multiplies_int8(dim: int) -> bool:
    """Whether products of int8 are exact, the largest ones included."""
    full = torch.full((_USERS, dim), 127, dtype=torch.int8)
    mixed = (torch.arange(_ITEMS * dim) * 7919 % 255 - 127).to(torch.int8).view(_ITEMS, dim)
    try:
        return all(
            torch.equal(torch._int_mm(users, items.t()), users.int() @ items.int().t())
            for users, items in ((full, full), (full, -full), (mixed[:_USERS], mixed))
        )
    except (RuntimeError, NotImplementedError):
        return False
