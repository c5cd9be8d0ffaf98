"""Scoring in one run on one machine: the kernel and the whole Spark job beside what others reach on the same shape.

.venv/bin/python benchmarks/scoring.py --users 50000 --items 100000 --dim 64 --k 100 --json scoring.json

Rates are million (user, item) pairs a second. The vectors of `kernel_trained` are those of the demo's model
(`make demo` first). `pip install -e '.[bench]'` adds implicit and faiss; a peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import peers
import torch
from end_to_end import EndToEnd, trained_vectors

from recbatch.ranking.arithmetic import fastest
from recbatch.ranking.screen import Arithmetic
from recbatch.ranking.topk import ItemMatrix

_ALS_PAIRS = 5e8  # less would measure its fixed costs, more its patience
_PARTS = ("kernels", "peers", "spark", "als", "incremental", "skew")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 50_000), ("items", 100_000), ("dim", 64), ("k", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--only", nargs="*", choices=_PARTS, default=_PARTS, help="leave out the other parts")
    parser.add_argument("--warehouse", type=Path, default=Path("data/demo/warehouse"), help="of the demo")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    torch.set_num_threads(1)
    fastest(options.dim)  # measured on one thread, as the workers do
    if "kernels" in options.only or "peers" in options.only:
        _vectors(options, figures)
    if {"spark", "als", "incremental", "skew"} & set(options.only):
        _jobs(options, figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _vectors(options: argparse.Namespace, figures: dict[str, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    users = torch.randn(options.users, options.dim, generator=generator)
    items = torch.randn(options.items, options.dim, generator=generator)
    threads, k = options.threads, options.k
    print(f"{options.users:,} users x {options.items:,} items, d = {options.dim}, K = {k}, {threads} threads")
    _report(figures, "gemm", lambda: peers.gemm(users, items, threads))
    if "kernels" in options.only:
        matrix = ItemMatrix(items, torch.zeros(options.items), torch.randperm(options.items, generator=generator))
        norm = float(torch.linalg.vector_norm(users, dim=1).mean())
        _report(figures, "kernel_random", lambda: peers.kernel(users, matrix, k, threads, norm))
        for kind in Arithmetic:
            _report(
                figures, f"kernel_random_{kind}", lambda kind=kind: peers.kernel(users, matrix, k, threads, norm, kind)
            )
        if (options.warehouse / "models").exists():
            trained, known = trained_vectors(options.warehouse, options.users)
            norm = float(torch.linalg.vector_norm(trained, dim=1).mean())
            _report(figures, "gemm_trained", lambda: peers.gemm(trained, known.vectors, threads))
            _report(figures, "kernel_trained", lambda: peers.kernel(trained, known, k, threads, norm))
            kind = Arithmetic.FLOAT32
            _report(figures, "kernel_trained_float32", lambda: peers.kernel(trained, known, k, threads, norm, kind))
        else:
            print(f"kernel_trained: no model in {options.warehouse}; run `make demo` first")
    if "peers" in options.only:
        _report(figures, "gemm_topk", lambda: peers.gemm_topk(users, items, k, threads))
        _report(figures, "implicit", lambda: peers.implicit_topk(users, items, k, threads))
        _report(figures, "faiss", lambda: peers.faiss_topk(users, items, k, threads))


def _jobs(options: argparse.Namespace, figures: dict[str, float]) -> None:
    with tempfile.TemporaryDirectory(prefix="recbatch-benchmark-") as folder:
        job = EndToEnd.create(Path(folder), options.users, options.items, options.dim, options.k, options.threads)
        try:
            if "spark" in options.only:
                figures |= job.measure(1)
                _print_job("spark", figures, options)
                fused = {f"fused_{name}": value for name, value in job.fused().measure(5).items()}
                figures |= fused
                _print_job(
                    "fused_spark", {name.removeprefix("fused_"): value for name, value in fused.items()}, options
                )
            for number, part in enumerate(("incremental", "skew"), start=1):
                if part in options.only:
                    shares = job.incremental(10 * number) if part == "incremental" else job.skewed(10 * number)
                    print(part, ", ".join(f"{name} {share:.3f}" for name, share in shares.items()), flush=True)
                    figures |= {f"{part}_{name}": share for name, share in shares.items()}
            if "als" in options.only:
                users = min(options.users, max(1, int(_ALS_PAIRS / options.items)))
                _report(figures, "als", lambda: peers.als(job.spark, users, options.items, options.dim, options.k))
                if "spark" in figures:
                    print(f"spark / als {figures['spark'] / figures['als']:.1f}")
        finally:
            job.spark.stop()


def _print_job(name: str, figures: dict[str, float], options: argparse.Namespace) -> None:
    print(f"{name:<22} {figures['spark']:8.0f}  (cold {figures['spark_cold']:.0f})")
    print(
        f"  the kernel alone on its vectors {figures['spark_kernel']:8.0f}; spark / kernel "
        f"{figures['spark'] / figures['spark_kernel']:.2f}"
    )
    for part in ("encoding", "kernel", "explaining", "writing", "spark"):
        print(f"  {part:<12} {figures[f'seconds_{part}']:6.2f} s of {options.threads} cores")
    print(f"  in all       {figures['seconds_warm']:6.2f} s warm, {figures['seconds_cold']:.2f} s cold")
    print(f"  worker peak  {figures['worker_peak_mb']:6.0f} MiB")


def _report(figures: dict[str, float], name: str, measure: Callable[[], float]) -> None:
    try:
        figures[name] = measure()
    except ModuleNotFoundError as error:
        print(f"{name:<24} left out: {error}")
        return
    base = figures.get("gemm_trained" if "trained" in name else "gemm")
    print(
        f"{name:<24} {figures[name]:8.0f}" + (f"  {figures[name] / base:.2f} of the product" if base else ""),
        flush=True,
    )


if __name__ == "__main__":
    main()
