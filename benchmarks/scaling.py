"""What the scoring job costs as users and items grow: a table, and a plot of seconds over both.

.venv/bin/python benchmarks/scaling.py --plot docs/scaling.png --json scaling.json

Every point is a run with warm workers, Delta to Delta; memory is that of the largest worker beyond one that has only
imported torch, and beyond the file of the scorer, whose pages the workers of a host share. A straight line through the
first and the last point says how linear the cost is.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from end_to_end import EndToEnd

from recbatch.ranking.arithmetic import fastest

_USERS, _ITEMS = (10_000, 50_000, 100_000, 200_000), (10_000, 100_000, 300_000, 1_000_000)
_OF_USERS, _OF_ITEMS = 100_000, 20_000  # items while users grow, and the other way round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw them into this picture")
    options = parser.parse_args()
    torch.set_num_threads(1)
    fastest(options.dim)
    shapes = [("users", users, _OF_USERS) for users in _USERS] + [("items", _OF_ITEMS, items) for items in _ITEMS]
    points = []
    for grows, users, items in shapes:
        points.append({"grows": grows, "users": users, "items": items} | _point(users, items, options))
        print(", ".join(f"{name} {_text(value)}" for name, value in points[-1].items()), flush=True)
    for grows in ("users", "items"):
        size, seconds = _series(points, grows)
        straight = np.interp(size, [size[0], size[-1]], [seconds[0], seconds[-1]])
        print(f"{grows}: at most {np.abs(seconds / straight - 1).max():.2f} from a straight line")
    if options.json:
        options.json.write_text(json.dumps(points, indent=2) + "\n")
    if options.plot:
        _draw(points, options.plot)


def _point(users: int, items: int, options: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="recbatch-benchmark-") as folder:
        job = EndToEnd.create(Path(folder), users, items, options.dim, options.k, options.threads)
        try:
            return job.growth()
        finally:
            job.spark.stop()


def _series(points: list[dict[str, object]], grows: str) -> tuple[np.ndarray, np.ndarray]:
    chosen = [point for point in points if point["grows"] == grows]
    return np.array([point[grows] for point in chosen], float), np.array([point["seconds"] for point in chosen], float)


def _text(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _draw(points: list[dict[str, object]], file: Path) -> None:
    from matplotlib.figure import Figure  # needed for the picture alone

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, grows, fixed in zip(
        figure.subplots(1, 2), ("users", "items"), (f"{_OF_USERS:,} items", f"{_OF_ITEMS:,} users"), strict=True
    ):
        size, seconds = _series(points, grows)
        axis.plot(size / 1000, seconds, "o-", label="measured")
        axis.plot(size[[0, -1]] / 1000, seconds[[0, -1]], ":", color="grey", label="straight line")
        axis.set(title=f"{grows} x {fixed}", xlabel=f"thousand {grows}", ylabel="seconds, warm", ylim=0, xlim=0)
        axis.legend(frameon=False)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
