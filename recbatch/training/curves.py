"""The course of a training as files: figures for programs, a picture for people, and TensorBoard's events."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from importlib.util import find_spec
from pathlib import Path

from recbatch.training.trainer import EpochResult

FIGURES, PICTURE = "epochs.csv", "epochs.png"
_SCALARS = {
    "loss/training": "loss",
    "ndcg@10/validation": "ndcg",
    "learning_rate": "learning_rate",
    "seconds/training": "training_seconds",
    "seconds/epoch": "seconds",
}


def write(curve: Sequence[EpochResult], folder: Path) -> None:
    """Write `epochs.csv`, a row an epoch, and where matplotlib is installed (extra `tune`) `epochs.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FIGURES).open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(EpochResult)])
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in curve)
    if find_spec("matplotlib"):
        _draw(curve, folder / PICTURE)


@contextmanager
def events(folder: Path) -> Iterator[Callable[[EpochResult], None]]:
    """What puts an epoch into `folder` for TensorBoard as soon as it ends, where that is installed (its extra)."""
    if not find_spec("tensorboard"):
        yield lambda epoch: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def add(epoch: EpochResult) -> None:
            for name, field in _SCALARS.items():
                writer.add_scalar(name, getattr(epoch, field), epoch.epoch)
            writer.flush()

        yield add


def _draw(curve: Sequence[EpochResult], picture: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    epochs = [one.epoch for one in curve]
    figure, loss = plt.subplots(figsize=(6, 4))
    loss.plot(epochs, [one.loss for one in curve], color="tab:gray", label="training loss")
    loss.set(xlabel="epoch", ylabel="training loss")
    metric = loss.twinx()
    metric.plot(epochs, [one.ndcg for one in curve], color="tab:blue", marker="o", label="validation NDCG@10")
    metric.set(ylabel="validation NDCG@10")
    best = max(curve, key=lambda one: one.ndcg)
    metric.annotate(f"{best.ndcg:.4f}", (best.epoch, best.ndcg), textcoords="offset points", xytext=(0, 6))
    figure.legend(loc="upper center", ncols=2)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.savefig(picture, dpi=110)
    plt.close(figure)
