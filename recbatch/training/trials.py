"""The trials of a search as files: figures for programs, a picture for people, and the best one as a configuration."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from recbatch.training.search import Trial, best_of
from recbatch.training.space import Setting

FIGURES, PICTURE, OVERLAY = "trials.csv", "quality_cost.png", "best.yaml"
_COLUMNS = ("number", "state", "ndcg", "epoch_ndcg", "seconds", "epochs", "weights", "note")


def write_figures(trials: Sequence[Trial], folder: Path) -> None:
    """Write `trials.csv`: a row a trial, with a column for every option that was searched."""
    with (folder / FIGURES).open("w", newline="") as file:
        writer = csv.DictWriter(file, [*_COLUMNS, *trials[0].setting.options()])
        writer.writeheader()
        writer.writerows({name: getattr(one, name) for name in _COLUMNS} | one.setting.options() for one in trials)


def write_overlay(trials: Sequence[Trial], base: Setting, folder: Path) -> Path:
    """Write `best.yaml`: what the best trial changes in `base`, to be given after it by --config.

    Raises ModelError where no trial finished.
    """
    best = best_of(trials)
    changed: dict[str, dict[str, Any]] = {}
    for name, value in best.setting.changes(base).items():
        section, _, option = name.partition(".")
        changed.setdefault(section, {})[option] = value
    before = trials[0].ndcg
    lines = [
        f"# Trial {best.number} of {len(trials)}: validation NDCG@10 {best.ndcg:.4f}, as configured "
        + ("it failed." if before is None else f"{before:.4f}."),
        "# Only what it changes; give it after the configuration that it was found with.",
    ]
    path = folder / OVERLAY
    path.write_text("\n".join([*lines, yaml.safe_dump(changed, sort_keys=False)]))
    return path


def write_picture(trials: Sequence[Trial], folder: Path) -> Path | None:
    """Write `quality_cost.png`, NDCG@10 against seconds of training; None where matplotlib is not installed."""
    if not find_spec("matplotlib"):
        return None
    _draw(trials, folder / PICTURE)
    return folder / PICTURE


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """The finished trials that no other one beats in quality without taking longer, the quickest first."""
    front: list[Trial] = []
    finished = [trial for trial in trials if trial.ndcg is not None]
    for trial in sorted(finished, key=lambda one: (one.seconds, -(one.ndcg or 0.0))):
        if not front or (trial.ndcg or 0.0) > (front[-1].ndcg or 0.0):
            front.append(trial)
    return front


def _draw(trials: Sequence[Trial], picture: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    finished, front, best = [one for one in trials if one.ndcg is not None], pareto_front(trials), best_of(trials)
    figure, axes = plt.subplots(figsize=(6, 4))
    points = [(one.seconds, one.ndcg or 0.0) for one in finished]
    axes.scatter(*zip(*points, strict=True), color="tab:gray", label="trials")
    edge = [(one.seconds, one.ndcg or 0.0) for one in front]
    axes.plot(*zip(*edge, strict=True), color="tab:blue", marker="o", label="best for their time")
    axes.annotate(
        f"trial {best.number}: {best.ndcg:.4f}",
        (best.seconds, best.ndcg or 0.0),
        textcoords="offset points",
        xytext=(0, 8),
        ha="center",
    )
    axes.margins(0.15)
    axes.set(xlabel="seconds of training", ylabel="validation NDCG@10")
    axes.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)
