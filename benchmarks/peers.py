"""What the ranking kernel is compared with: each function returns a rate in million (user, item) pairs a second.

Every peer runs in the way that is the fastest for it of those that it offers: ways are tried on a part of the users,
and the best one is measured again. A rate is that of the shortest of several runs: what the machine can do undisturbed.
Vectors are (N, d) float32. Peers other than the kernel rank by u . v alone, without bias, exclusions or a fixed order
of equal scores.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from torch import Tensor

from recbatch.ranking.screen import Arithmetic
from recbatch.ranking.topk import Catalogue, ItemMatrix, TopK, top_k_of

T = TypeVar("T")

_scratch = threading.local()
_ROUNDS = 3
_MOST_SECONDS = 5.0  # of one run of a peer; users beyond that are left out
_MOST_SECONDS_KERNEL = 20.0
_TRIAL_USERS = 2048
_KERNEL_BATCH, _KERNEL_TILE = 256, 4096
_TOPK_BATCH, _TOPK_TILE = 128, 4096
_FAISS_BATCH = 512


class _Way(NamedTuple):
    """One way of doing the work. block: users in a batch. rank: ranks the items for some batches."""

    block: int
    rank: Callable[[Sequence[Tensor]], object]


class _Spread(NamedTuple):
    """How batches share threads. pool: each of its threads takes a batch; None where torch splits every product."""

    threads: int
    pool: ThreadPoolExecutor | None

    def each(self, work: Callable[[Tensor], T], batches: Sequence[Tensor]) -> list[T]:
        # One number for all threads where torch multiplies with MKL, so that it is set again for every run.
        torch.set_num_threads(self.threads if self.pool is None else 1)
        return list((map if self.pool is None else self.pool.map)(work, batches))


def gemm(users: Tensor, items: Tensor, threads: int) -> float:
    """The bare float32 product of every user with every item, in torch, at its best shape and threading."""
    shapes = {(b, min(t, len(items))) for b in (256, 512, 1024, 2048) for t in (1024, 2048, 4096, 8192)}
    with _torch_threads(threads), _pool(threads) as pool:
        ways = [
            _product(items, *shape, by_item, _Spread(threads, with_))
            for shape in sorted(shapes)
            for by_item in (False, True)
            for with_ in _pools(pool, threads)
            if with_ is None or shape[0] <= 512  # else there is less than a batch for every thread
        ]
        return _rate(ways, users[:_TRIAL_USERS], len(items), threads)


def gemm_topk(users: Tensor, items: Tensor, k: int, threads: int) -> float:
    """The product for a batch of users with all items, then torch.topk of whole rows."""
    with _torch_threads(threads), _pool(threads) as pool:
        ways = [_product_topk(items, k, _Spread(threads, with_)) for with_ in _pools(pool, threads)]
        return _rate(ways, users, len(items), threads)


def kernel(
    users: Tensor,
    items: ItemMatrix,
    k: int,
    threads: int,
    typical_norm: float,
    arithmetic: Arithmetic | None = None,
) -> float:
    """The project's own kernel, batches of users over threads; `arithmetic` as for `Catalogue.create`."""
    with _torch_threads(1), _pool(threads) as pool:
        catalogue = Catalogue.create(items, typical_norm=typical_norm, arithmetic=arithmetic, tile_items=_KERNEL_TILE)

        def rank(batch: Tensor) -> TopK:
            return top_k_of(batch, catalogue, k)

        spread = _Spread(1, pool)
        return _rate(
            [_Way(_KERNEL_BATCH, partial(spread.each, rank))], users, len(items), threads, _MOST_SECONDS_KERNEL
        )


def implicit_topk(users: Tensor, items: Tensor, k: int, threads: int) -> float:
    """The function behind `recommend` of the models in `implicit`; it shares batches of 100 users among threads."""
    from threadpoolctl import threadpool_limits

    # Its threads call numpy, whose own threads would be in each other's way: implicit itself warns of them.
    with threadpool_limits(1, user_api="blas"):
        return _rate([_implicit(items, k, threads)], users, len(items))


def faiss_topk(users: Tensor, items: Tensor, k: int, threads: int) -> float:
    """faiss.IndexFlatIP: its own loops or a BLAS, and its own threads or one search in each of ours."""
    import faiss

    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items.contiguous().numpy())
    before = faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold
    try:
        with ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
            faiss.omp_set_num_threads(threads)
            # By default batches of this size never reach the BLAS, which can be more than twice as fast.
            ways = [_faiss(index, k, threshold, p) for threshold in (before[1], 1) for p in _pools(pool, threads)]
            return _rate(ways, users, len(items), threads)
    finally:
        faiss.omp_set_num_threads(before[0])
        faiss.cvar.distance_compute_blas_threshold = before[1]


def als(spark: SparkSession, n_users: int, n_items: int, dim: int, k: int) -> float:
    """`recommendForAllUsers` of pyspark.ml's ALS, every row, on the threads of the session; the fit is not timed."""
    model = _als(spark, n_users, n_items, dim)

    def recommend() -> None:
        model.recommendForAllUsers(k).write.format("noop").mode("overwrite").save()

    return n_users * n_items / _best_seconds(recommend, 2) / 1e6


def _product(items: Tensor, block: int, tile: int, by_item: bool, spread: _Spread) -> _Way:
    """Products in memory that is kept, tile after tile: (block, tile), or (tile, block) where `by_item`."""
    tiles = items.split(tile)

    def multiply(batch: Tensor) -> None:
        memory, turned = _memory(block * tile), batch.t().contiguous()
        for part in tiles:
            out = memory[: len(batch) * len(part)]
            if by_item:
                torch.mm(part, turned, out=out.view(len(part), len(batch)))
            else:
                torch.mm(batch, part.t(), out=out.view(len(batch), len(part)))

    return _Way(block, partial(spread.each, multiply))


def _product_topk(items: Tensor, k: int, spread: _Spread) -> _Way:
    tiles = [slice(start, start + _TOPK_TILE) for start in range(0, len(items), _TOPK_TILE)]

    def rank(batch: Tensor) -> Tensor:
        scores = _memory(_TOPK_BATCH * len(items))[: len(batch) * len(items)].view(len(batch), len(items))
        for tile in tiles:
            torch.mm(batch, items[tile].t(), out=scores[:, tile])
        return torch.topk(scores, k, dim=1).indices

    return _Way(_TOPK_BATCH, partial(spread.each, rank))


def _memory(size: int) -> Tensor:
    """float32, kept for the thread that asks: fresh pages cost more than to fill them."""
    kept: dict[str, Tensor] = _scratch.__dict__
    if "memory" not in kept or len(kept["memory"]) < size:
        kept["memory"] = torch.empty(size)
    return kept["memory"]


def _als(spark: SparkSession, n_users: int, n_items: int, dim: int) -> ALSModel:
    """Fitted in one iteration to ratings in which every user and every item occurs."""
    longest = max(n_users, n_items)
    position, turn = F.col("id") % longest, F.floor(F.col("id") / longest)
    ratings = spark.range(4 * longest).select(
        (position % n_users).cast("int").alias("user"),
        ((position + 37 * turn) % n_items).cast("int").alias("item"),
        (1 + F.pmod(F.xxhash64("id"), F.lit(4096)) / 1024).cast("float").alias("rating"),
    )
    return ALS(rank=dim, maxIter=1, seed=0).fit(ratings)


def _implicit(items: Tensor, k: int, threads: int) -> _Way:
    from implicit.cpu.topk import topk

    matrix = items.contiguous().numpy()

    def rank(batches: Sequence[Tensor]) -> NDArray[np.int32]:
        ids: NDArray[np.int32] = topk(matrix, torch.cat(list(batches)).numpy(), k, num_threads=threads)[0]
        return ids

    return _Way(100 * threads, rank)


def _faiss(index: Any, k: int, blas_from: int, pool: ThreadPoolExecutor | None) -> _Way:
    """blas_from: users in a batch from which faiss multiplies with its BLAS. pool: None where faiss has the threads."""
    import faiss

    def rank(batches: Sequence[Tensor]) -> NDArray[np.int64]:
        faiss.cvar.distance_compute_blas_threshold = blas_from
        spread = map if pool is None else pool.map
        return np.concatenate([ids for _, ids in spread(lambda batch: index.search(batch.numpy(), k), batches)])

    return _Way(_FAISS_BATCH, rank)


def _pools(pool: ThreadPoolExecutor, threads: int) -> list[ThreadPoolExecutor | None]:
    """The pools to try: a single thread needs none."""
    return [None, pool] if threads > 1 else [None]


def _rate(
    ways: Sequence[_Way], users: Tensor, n_items: int, threads: int = 1, most_seconds: float = _MOST_SECONDS
) -> float:
    """Of the fastest way, with as many users as fit into `most_seconds`. threads: batches that are ranked at a time."""
    users = users.contiguous()
    best = ways[0]
    if len(ways) > 1:
        trials = [_best_seconds(partial(way.rank, users[:_TRIAL_USERS].split(way.block)), 2) for way in ways]
        best = ways[trials.index(min(trials))]
    batches = users.split(best.block)
    first = partial(best.rank, batches[:threads])
    first()  # not counted: compiles, and every thread gets its memory
    at_a_time = max(1, int(most_seconds / _best_seconds(first, 1)))
    batches = batches[: at_a_time * threads]
    seconds = _best_seconds(partial(best.rank, batches), _ROUNDS)
    return sum(map(len, batches)) * n_items / seconds / 1e6


def _best_seconds(work: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in each of which torch uses no further ones; torch, numba and numpy let them run side by side."""
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
