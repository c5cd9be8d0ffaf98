"""The commands `tune` and `learning-curve`: which options, and how much data, are worth their time."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from recbatch.cli_options import ConfigFiles, Overrides
from recbatch.config import Config, load_config
from recbatch.errors import UsageError
from recbatch.report.columns import print_columns
from recbatch.report.progress import ConsoleProgress

if TYPE_CHECKING:
    from recbatch.context import Progress
    from recbatch.training.judging import Past
    from recbatch.training.learning_curve import Point
    from recbatch.training.search import Trial
    from recbatch.training.space import Setting

EXAMPLE = (
    "Example: recbatch tune --config conf/demo.yaml --trials 20 --minutes 30 --output data/tuning, then recbatch train "
    "--config conf/demo.yaml --config data/tuning/best.yaml"
)
CURVE_EXAMPLE = "Example: recbatch learning-curve --config conf/demo.yaml --output data/learning-curve"
_SHARES = "0.125,0.25,0.5,1"

Output = Annotated[Path, typer.Option(help="Folder for the results, outside of the warehouse; made where it is not.")]


def tune(
    config: ConfigFiles,
    output: Output,
    trials: Annotated[int, typer.Option(min=1, help="Settings to try; the first is the configuration as it is.")] = 20,
    minutes: Annotated[float, typer.Option(min=0, help="No setting but the first is begun or goes on after.")] = 30.0,
    overrides: Overrides = None,
) -> None:
    """Search the options of model and training for a better validation NDCG@10; the best is a file for --config.

    Reads the tables of `features` and writes nothing into the warehouse. Needs the extra `tune`.
    """
    from recbatch.training import trials as files
    from recbatch.training.reporting import Reported
    from recbatch.training.search import require_optuna, search

    require_optuna()
    loaded = load_config(config, overrides or [])
    folder = _folder(output, loaded)
    console = _console()
    base = _setting(loaded)
    with ConsoleProgress(console) as progress, _past(loaded, progress) as past:

        def ended(done: Sequence[Trial]) -> None:
            files.write_figures(done, folder)  # so that an interruption takes nothing away
            progress.notify(_line(done[-1], base))

        def told(number: int) -> Reported:
            return Reported(progress.advance, f"trial {number}", loaded.training.max_epochs)

        found = search(past, base, trials, minutes, told, ended)
    overlay = files.write_overlay(found, base, folder)
    files.write_picture(found, folder)
    _print_trials(console, found, base, overlay)


def learning_curve(
    config: ConfigFiles,
    output: Output,
    shares: Annotated[
        str, typer.Option(help="Shares of the sampled buckets to train on, above 0 to 1, with commas between.")
    ] = _SHARES,
    overrides: Overrides = None,
) -> None:
    """Train the configuration on growing shares of the users, and say what more data brings.

    All shares are judged on the users of the smallest. Reads the tables of `features` and writes nothing into the
    warehouse.
    """
    from recbatch.training import learning_curve as curve
    from recbatch.training.reporting import Reported

    wanted = _shares(shares)
    loaded = load_config(config, overrides or [])
    folder = _folder(output, loaded)
    console = _console()
    with (
        tempfile.TemporaryDirectory(prefix="recbatch-curve-") as scratch,
        ConsoleProgress(console) as progress,
        _past(loaded, progress) as past,
    ):

        def ended(point: Point) -> None:
            progress.notify(f"{point.share:.3g} of the buckets: validation NDCG@10 {point.ndcg:.4f}")

        def told(share: float) -> Reported:
            return Reported(progress.advance, f"share {share:.3g}", loaded.training.max_epochs)

        points = curve.learning_curve(past, _setting(loaded), wanted, Path(scratch), told, ended)
    curve.write(points, folder)
    _print_points(console, points)
    console.print(curve.last_gain(points), highlight=False, soft_wrap=True)
    console.print(f"Written to {folder}", highlight=False, soft_wrap=True, markup=False)


@contextmanager
def _past(config: Config, progress: Progress) -> Iterator[Past]:
    """What is trained on, as local files. Spark ends before the training begins, which then has its memory."""
    from recbatch.allocator import keep_freed_memory
    from recbatch.context import StageContext
    from recbatch.session import build_session
    from recbatch.stages.learning import export_past

    with tempfile.TemporaryDirectory(prefix="recbatch-tune-") as scratch:
        spark = build_session(config.spark, f"recbatch {config.pipeline} tune")
        try:
            context = replace(StageContext.read_only(spark, config), progress=progress)
            past = export_past(context, Path(scratch))
        finally:
            spark.stop()
        keep_freed_memory()
        yield past


def _setting(config: Config) -> Setting:
    from recbatch.training.space import Setting

    return Setting(config.model, config.training)


def _folder(output: Path, config: Config) -> Path:
    """The folder, made. Raises UsageError where it cannot be, or lies in the warehouse."""
    if "://" not in config.warehouse and output.resolve().is_relative_to(Path(config.warehouse).resolve()):
        raise UsageError(f"--output {output} lies in the warehouse {config.warehouse}", remedy="name another folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            return output
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error}", remedy="name another folder") from error


def _shares(text: str) -> list[float]:
    try:
        shares = [float(one) for one in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares):
        raise UsageError(f"--shares '{text}' are not numbers above 0 to 1", remedy=f"for example {_SHARES}")
    return shares


def _line(trial: Trial, base: Setting) -> str:
    result = f"validation NDCG@10 {trial.ndcg:.4f}" if trial.ndcg is not None else f"{trial.state}: {trial.note}"
    return f"trial {trial.number}: {result} ({_changes(trial, base)})"


def _changes(trial: Trial, base: Setting) -> str:
    changes = trial.setting.changes(base)
    return ", ".join(f"{name.partition('.')[2]}={value}" for name, value in changes.items()) or "as configured"


def _print_trials(console: Console, trials: Sequence[Trial], base: Setting, overlay: Path) -> None:
    from recbatch.training.search import best_of

    best = best_of(trials)
    ranked = sorted(trials, key=lambda one: (one.ndcg is None, -(one.ndcg or 0.0), one.number))
    rows = [
        (
            str(one.number),
            one.state,
            "" if one.ndcg is None else f"{one.ndcg:.4f}",
            f"{one.seconds:.1f}",
            str(one.epochs),
            _changes(one, base),
        )
        for one in ranked
    ]
    names = ("trial", "state", "NDCG@10", "seconds", "epochs", "changes")
    print_columns(console, "Trials, by validation NDCG@10", names, rows, marked=ranked.index(best))
    if best.number == 0:
        console.print("No trial is better than the configuration as it is.")
    elif best.ndcg and trials[0].ndcg:
        console.print(f"Trial {best.number} has {best.ndcg / trials[0].ndcg - 1:+.1%} NDCG@10.", highlight=False)
    console.print(
        f"Written to {overlay.parent}; take the best trial by --config {overlay}", soft_wrap=True, markup=False
    )


def _print_points(console: Console, points: Sequence[Point]) -> None:
    rows = [
        (
            f"{one.share:.3g}",
            str(one.buckets),
            f"{one.behaviours:,}",
            f"{one.ndcg:.4f}",
            f"{one.error:.4f}",
            f"{one.network_ndcg:.4f}",
            str(one.epochs),
            f"{one.seconds:.1f}",
        )
        for one in points
    ]
    names = ("share", "buckets", "behaviours", "NDCG@10", "error", "network alone", "epochs", "seconds")
    print_columns(console, f"Validation NDCG@10 of the same {points[0].judged:,} users", names, rows)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 120)
