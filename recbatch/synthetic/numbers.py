"""Random numbers that are functions of a key and a counter, so that nothing depends on the order of the work.

The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
"""

from __future__ import annotations

from math import gcd

import numpy as np

from recbatch.compilation import compiled

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _33, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(33), np.uint64(11)
_TO_UNIT = 2.0**-53


@compiled
def bits(key: np.uint64, counter: int) -> np.uint64:
    """64 random bits."""
    x = key + (np.uint64(counter) + np.uint64(1)) * _GOLDEN
    x = (x ^ (x >> _30)) * _FIRST
    x = (x ^ (x >> _27)) * _SECOND
    return x ^ (x >> _31)


@compiled
def uniform(key: np.uint64, counter: int) -> float:
    """A number from 0 to below 1."""
    return float(bits(key, counter) >> _11) * _TO_UNIT


@compiled
def below(key: np.uint64, counter: int, n: int) -> int:
    """A whole number from 0 to below `n`, of at most 31 bits."""
    return int(np.int64(((bits(key, counter) >> _33) * np.uint64(n)) >> _31))


@compiled
def subkey(seed: np.uint64, stream: int, number: int) -> np.uint64:
    """The key of one thing (a user, an item, a visit) within a stream of such things."""
    return bits(bits(seed, stream), number)


def scatter(n: int) -> int:
    """A multiplier whose products modulo `n` visit every number below `n` once, neighbours far apart."""
    step = max(1, int(n * 0.6180339887498949))
    while gcd(step, n) != 1:
        step += 1
    return step
