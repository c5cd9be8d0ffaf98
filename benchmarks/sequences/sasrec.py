"""RecTools' SASRec with a softmax over all items, under the protocol of `protocol.py`; in an environment of its own.

make peers-env
.venv-peers/bin/python benchmarks/sequences/sasrec.py --sequences Toys_and_Games.txt --dim 64 --length 50

A line an epoch: the seconds of training so far, without validation, and the figures on the validation items. The best
epoch by validation ndcg@10 is the one that is tested. `--positions-only` measures the speed of training instead, with
`--full-length` on rows without padding.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from protocol import CUTOFF, Items, LeaveOneOut, Score, full_rows, leave_one_out, rank_metrics, read_sequences
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet

T = TypeVar("T", bound=Callback)

_NDCG, _RECALL = f"ndcg@{CUTOFF}", f"recall@{CUTOFF}"
_WARM_UP_STEPS = 5


class Clock:
    """Seconds between starts and stops: on the wall, and of the processor in all threads.

    The latter say more where others use the machine, though threads that wait for each other count as well.
    """

    def __init__(self) -> None:
        self.seconds, self.cpu_seconds = 0.0, 0.0
        self._began = 0.0, 0.0

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu_seconds += time.process_time() - self._began[1]


class Training(Callback):
    """Validates after every epoch, keeps the best weights and stops where they get no better or time is up."""

    def __init__(self, split: LeaveOneOut, length: int, patience: int, most_seconds: float) -> None:
        self.split, self.length = split, length
        self.patience, self.most_seconds = patience, most_seconds
        self.clock, self.positions = Clock(), 0
        self.curve: list[tuple[float, float]] = []
        self.valid: dict[str, float] = {}
        self.best: dict[str, torch.Tensor] = {}
        self.best_epoch = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, torch.Tensor], batch_idx: int
    ) -> None:
        self.positions += int(batch["y"].count_nonzero())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.stop()
        seconds = self.clock.seconds
        figures = rank_metrics(scorer(pl_module, self.split.n_items, self.length), self.split.validation)
        self.curve.append((seconds, figures[_NDCG]))
        epoch, loss = len(self.curve), float(trainer.callback_metrics["train_loss"])
        print(
            f"epoch {epoch:3d}  {seconds:7.1f} s  loss {loss:.4f}  valid {_NDCG} {figures[_NDCG]:.4f}"
            f"  {_RECALL} {figures[_RECALL]:.4f}",
            flush=True,
        )
        if figures[_NDCG] > self.valid.get(_NDCG, -1.0):
            self.valid, self.best_epoch = figures, epoch
            self.best = {name: weights.clone() for name, weights in pl_module.state_dict().items()}
        is_over = seconds * (1 + 1 / epoch) > self.most_seconds
        trainer.should_stop = is_over or epoch - self.best_epoch >= self.patience
        pl_module.train()  # to validate, it was set to leave nothing out
        self.clock.start()


class Speed(Callback):
    """Counts what is trained after the first steps, in which memory is allotted and kernels are chosen."""

    def __init__(self) -> None:
        self.clock, self.positions = Clock(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, torch.Tensor], batch_idx: int
    ) -> None:
        if trainer.global_step > _WARM_UP_STEPS:
            self.clock.stop()
            self.positions += int(batch["y"].count_nonzero())
        self.clock.start()


def main() -> None:
    options = _options()
    warnings.filterwarnings("ignore", module="pytorch_lightning|rectools|pydantic")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    torch.set_num_threads(options.threads)
    seed_everything(options.seed, verbose=False)
    sequences = read_sequences(options.sequences, options.seed)
    split = leave_one_out(sequences)
    print(f"{len(sequences):,} users, {split.n_items:,} items, {sum(map(len, sequences)):,} behaviours", flush=True)
    figures = _speed(options, split) if options.positions_only else _quality(options, split)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["settings"] = {name: str(value) for name, value in vars(options).items()}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def scorer(module: LightningModule, n_items: int, length: int) -> Score:
    """What `rank_metrics` asks. Items that were not trained cannot be recommended: they get minus infinity.

    As RecTools does, they are taken out of the histories before these are cut to the last `length` items.
    """
    # RecTools numbers items anew: 0 is padding, then those that are trained, in its own order.
    known = np.asarray(module.item_external_ids[1:], dtype=np.int64)
    internal = np.zeros(n_items + 1, dtype=np.int64)
    internal[known] = np.arange(1, len(known) + 1)
    model = module.torch_model.eval()

    def score(histories: Sequence[Items]) -> NDArray[np.float32]:
        sessions = np.zeros((len(histories), length), dtype=np.int64)
        for row, history in enumerate(histories):
            trained = internal[history]
            trained = trained[trained > 0][-length:]
            sessions[row, length - len(trained) :] = trained
        with torch.no_grad():
            vectors = model.item_model.get_all_embeddings()
            users = model.encode_sessions({"x": torch.from_numpy(sessions)}, vectors)[:, -1]
            logits = model.similarity_module(users, vectors).numpy()
        found = np.full((len(histories), n_items + 1), -np.inf, dtype=np.float32)
        found[:, known] = logits[:, 1:]
        return found

    return score


def _quality(options: argparse.Namespace, split: LeaveOneOut) -> dict[str, Any]:
    watch = Training(split, options.length, options.patience, options.seconds)
    model = _model(options, max_epochs=options.epochs, callbacks=[watch])
    model.fit(_dataset(split.train))
    watch = _fitted(model, Training)
    module = model.lightning_model
    module.load_state_dict(watch.best)
    test = rank_metrics(scorer(module, split.n_items, options.length), split.test)
    rate = watch.positions / watch.clock.seconds
    print(f"best epoch {watch.best_epoch}: valid {watch.valid}, test {test}; {rate:,.0f} positions a second")
    return {
        "valid": watch.valid,
        "test": test,
        "epochs": len(watch.curve),
        "best_epoch": watch.best_epoch,
        "seconds": watch.clock.seconds,
        "cpu_seconds": watch.clock.cpu_seconds,
        "curve": watch.curve,
        "positions_per_second": rate,
    }


def _speed(options: argparse.Namespace, split: LeaveOneOut) -> dict[str, Any]:
    rows = list(full_rows(split.train, options.length, options.seed)) if options.full_length else split.train
    model = _model(options, max_epochs=-1, max_steps=_WARM_UP_STEPS + options.steps, callbacks=[Speed()])
    model.fit(_dataset(rows))
    watch = _fitted(model, Speed)
    clock = watch.clock
    rate = watch.positions / clock.seconds
    print(
        f"{watch.positions:,} positions in {clock.seconds:.1f} s, {clock.cpu_seconds:.1f} s of the processor:"
        f" {rate:,.0f} positions a second"
    )
    return {
        "steps": options.steps,
        "positions": watch.positions,
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu_seconds,
        "positions_per_second": rate,
    }


def _model(options: argparse.Namespace, **trainer: Any) -> SASRecModel:
    def make_trainer() -> Trainer:
        return Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **trainer,
        )

    return SASRecModel(
        n_blocks=options.blocks,
        n_heads=options.heads,
        n_factors=options.dim,
        dropout_rate=options.dropout,
        session_max_len=options.length,
        batch_size=options.batch,
        lr=options.lr,
        loss="softmax",
        item_net_block_types=(IdEmbeddingsItemNet,),
        get_trainer_func=make_trainer,
    )


def _fitted(model: SASRecModel, kind: type[T]) -> T:
    """RecTools trains with a copy of the trainer, so what a callback saw is in a copy of it."""
    (callback,) = (callback for callback in model.fit_trainer.callbacks if isinstance(callback, kind))
    return callback


def _dataset(sequences: Sequence[Items]) -> Dataset:
    """RecTools sorts by time: here the place in the sequence."""
    lengths = [len(sequence) for sequence in sequences]
    places = np.concatenate([np.arange(length) for length in lengths])
    frame = {
        Columns.User: np.repeat(np.arange(len(sequences)), lengths),
        Columns.Item: np.concatenate(sequences),
        Columns.Weight: 1.0,
        Columns.Datetime: pd.to_datetime(places, unit="s"),
    }
    return Dataset.construct(pd.DataFrame(frame))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=Path, required=True, help="lines `user item item ...` in time order")
    whole = {"dim": 64, "length": 50, "batch": 128, "epochs": 200, "seed": 0, "patience": 10, "blocks": 2, "heads": 1}
    for name, default in whole.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no epoch that would end later")
    parser.add_argument("--positions-only", action="store_true", help="measure the speed of training, evaluate nothing")
    parser.add_argument("--steps", type=int, default=30, help="to measure with --positions-only, after a warm-up")
    parser.add_argument("--full-length", action="store_true", help="with --positions-only: rows without padding")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.full_length and not options.positions_only:
        parser.error("--full-length rows have no users to evaluate; add --positions-only")
    return options


if __name__ == "__main__":
    main()
