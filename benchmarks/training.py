"""How fast the trainer is: non-padding positions a second, beside its peers, with equal width, length, batch and cores.

.venv/bin/python benchmarks/training.py --sequences Toys_and_Games.txt --peer .venv-peers/bin/python

ours        the trainer, whole windows, full softmax by the chunked kernel
autograd    the same network, windows and steps, and cross-entropy of all logits by torch's autograd
peer        RecTools' SASRec with softmax loss, in the environment that `make peers-env` makes; left out without --peer

Each is measured on the windows of the file and on rows of full length, in processes of its own after a warm-up: the
first two in turns over so many seconds, of which the median counts, and the peer once over a number of steps. With
--items, made-up sequences over so many items instead: for memory, as --items 100000, and with --loss sampled, which is
ours alone, for more items than all of which a step can score: --items 1000000.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from public_data import SAMPLE, Log, read_log, validation_window, write_arrow

from recbatch.config.learning import ModelSection, TrainingSection
from recbatch.model.fusion import Popularity
from recbatch.model.items import ItemFeatures
from recbatch.model.recommender import Recommender
from recbatch.training.batches import Batch
from recbatch.training.objectives import make_objective
from recbatch.training.optimizers import make_optimizer
from recbatch.training.run import Inputs, Run
from recbatch.training.trainer import threads

PEER = Path(__file__).parent / "sequences" / "sasrec.py"
_OURS = ("ours", "autograd")
_WARM_UP_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=Path, default=SAMPLE, metavar="FILE", help="default: a sample of Toys")
    parser.add_argument("--items", type=int, help="made-up sequences over so many items")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--batch", type=int, default=128, help="rows a step")
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement, after a warm-up")
    parser.add_argument("--turns", type=int, default=3, help="measurements of ours and of autograd, in turns")
    parser.add_argument("--loss", choices=["full", "sampled"], default="full")
    parser.add_argument("--peer", type=Path, metavar="PYTHON")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(_measure(options)))
        return
    figures: dict[str, Any] = {}
    names = _OURS if options.loss == "full" else _OURS[:1]
    for rows in ("made up",) if options.items else ("file", "full"):
        # In turns, because a shared machine changes its speed within minutes; of each the median.
        turns = [(name, _in_a_process(options, name, rows)) for _ in range(options.turns) for name in names]
        found = {name: _median([one for other, one in turns if other == name]) for name in names}
        if options.peer is not None and options.loss == "full" and not options.items:
            found["peer"] = _peer(options, rows)
        for name, one in found.items():
            ratio = found["ours"]["positions_per_second"] / one["positions_per_second"]
            memory = f", {one['peak_mb']:.0f} MiB at most" if "peak_mb" in one else ""
            print(
                f"{rows:<8} {name:<9} {one['positions_per_second']:10.0f} positions/s   ours is {ratio:.2f} x{memory}"
            )
        figures[rows] = found
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _median(turns: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.median([one[name] for one in turns])) for name in turns[0]}


def _in_a_process(options: argparse.Namespace, name: str, rows: str) -> dict[str, float]:
    mine = ("json", "peer", "worker", "turns")
    given = [f"--{key}={value}" for key, value in vars(options).items() if key not in mine and value]
    done = subprocess.run(
        [sys.executable, __file__, *given, f"--worker={name}:{rows}"], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peer(options: argparse.Namespace, rows: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="recbatch-peer-") as folder:
        out = Path(folder) / "figures.json"
        given = [
            f"--{key}={getattr(options, key)}" for key in ("sequences", "dim", "length", "batch", "blocks", "threads")
        ]
        full = ["--full-length"] if rows == "full" else []
        command = [str(options.peer), str(PEER), *given, "--positions-only", *full, f"--json={out}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found: dict[str, float] = json.loads(out.read_text())
    return found


def _measure(options: argparse.Namespace) -> dict[str, float]:
    name, rows = options.worker.split(":")
    log = _made_up(options) if options.items else read_log(options.sequences, None, 0)
    if rows == "full":
        log = _full_rows(log, options.length)
    model = ModelSection(dim=options.dim, blocks=options.blocks, context_length=options.length)
    # Without smoothing and averaging, which the peers do not have: all are to compute the same.
    config = TrainingSection(
        examples="windows",
        batch_rows=options.batch,
        loss=options.loss,
        label_smoothing=0.0,
        averaging=0.0,
        threads=options.threads,
    )
    with tempfile.TemporaryDirectory(prefix="recbatch-training-") as folder, threads(options.threads):
        inputs = Inputs([write_arrow(log, Path(folder))], log.features, 1)
        before = None if rows == "full" else validation_window().start
        run = Run(inputs, model, config, 0, before, options.loss)
        generator = np.random.default_rng(0)
        objective = make_objective(options.loss, config, log.features, np.ones(log.n_items, np.int64), generator)
        loss_of = _autograd(log.features) if name == "autograd" else objective
        speed = _positions_a_second(run, config, loss_of, generator, options.seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"positions_per_second": speed, "peak_mb": peak}


def _positions_a_second(
    run: Run, config: TrainingSection, loss_of: Any, generator: np.random.Generator, seconds: float
) -> float:
    optimizer = make_optimizer(run.model, config)
    run.model.train()
    positions, began = 0, 0.0
    for step, batch in enumerate(_forever(run, generator)):
        if step == _WARM_UP_STEPS:
            began = time.perf_counter()
        loss = loss_of(run.model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step >= _WARM_UP_STEPS:
            positions += len(batch.targets)
            if time.perf_counter() - began > seconds:
                break
    return positions / (time.perf_counter() - began)


def _forever(run: Run, generator: np.random.Generator) -> Iterator[Batch]:
    while True:
        yield from run.examples.batches(generator)


def _autograd(features: ItemFeatures) -> Any:
    everything = torch.arange(len(features))

    def loss_of(model: Recommender, batch: Batch) -> torch.Tensor:
        vectors, bias = model.items(features, everything)
        states = batch.states(model, batch.histories, vectors)
        return F.cross_entropy(states @ vectors.t() + bias, batch.targets)

    return loss_of


def _full_rows(log: Log, length: int) -> Log:
    """All behaviours one after the other, cut into rows that have `length` targets each."""
    rows = len(log.items) // (length + 1)
    return Log(np.arange(rows + 1) * (length + 1), log.items[: rows * (length + 1)], log.features, log.popularity)


def _made_up(options: argparse.Namespace) -> Log:
    rows = 2000
    items = np.random.default_rng(0).integers(0, options.items, rows * (options.length + 3)).astype(np.int32)
    nothing = torch.ones(options.items)
    features = ItemFeatures((), torch.zeros(options.items, 0))
    return Log(np.arange(rows + 1) * (options.length + 3), items, features, Popularity(nothing, nothing))


if __name__ == "__main__":
    main()
