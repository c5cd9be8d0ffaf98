"""The ranking kernel beside the bare matrix product on the same vectors, in one run: prints the ratio of their rates.

.venv/bin/python benchmarks/kernel.py --users 256 --items 100000 --dim 64 --k 100
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from recbatch.ranking.topk import ItemMatrix, top_k

_TILES = (1024, 2048, 4096, 8192, 16_384)
_ROUNDS = 7


def _best_seconds(work: Callable[[], object]) -> float:
    """The shortest of several runs, after one that is not counted: what the machine can do undisturbed."""
    work()
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _product(users: torch.Tensor, items: torch.Tensor, tile: int) -> Callable[[], object]:
    buffer = torch.empty(len(users), tile)

    def multiply() -> None:
        for start in range(0, len(items), tile):
            part = items[start : start + tile]
            torch.mm(users, part.t(), out=buffer[:, : len(part)])

    return multiply


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 256), ("items", 100_000), ("dim", 64), ("k", 100), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    users, vectors = torch.randn(options.users, options.dim), torch.randn(options.items, options.dim)
    items = ItemMatrix(vectors, torch.randn(options.items), torch.randperm(options.items))
    pairs = options.users * options.items / 1e6
    product = pairs / min(_best_seconds(_product(users, vectors, tile)) for tile in _TILES)
    kernel = pairs / _best_seconds(lambda: top_k(users, items, options.k))
    print(f"{options.users} users x {options.items} items, d = {options.dim}, K = {options.k}, random vectors")
    print(f"matrix product  {product:8.0f} million pairs a second")
    print(f"kernel, exact   {kernel:8.0f} million pairs a second, {kernel / product:.2f} of the product")


if __name__ == "__main__":
    main()
