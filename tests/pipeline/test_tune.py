"""What the search judges by is what the stage `train` reports, and neither command writes into the warehouse."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from recbatch.config import load_config
from recbatch.context import StageContext
from recbatch.errors import EXIT_DONE, InputContractError
from recbatch.stages.learning import export_past
from recbatch.training.judging import shipped
from recbatch.training.trainer import fit
from tests.pipeline.slice import ROOT
from tests.pipeline.support import Release, rows


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in found}


def _reported(release: Release) -> float:
    (candidate,) = rows(release.warehouse, "candidates")
    return float(dict(candidate["metrics"])["validation_ndcg@10"])


def test_the_configuration_is_worth_what_the_stage_says(release: Release, tmp_path: Path) -> None:
    before = _files(release.warehouse)
    past = export_past(StageContext.read_only(release.spark, release.config), tmp_path / "past")
    model, training = release.config.model, release.config.training
    fitted = fit(past.inputs, model, training, past.seed, past.window, lambda *_: None)
    assert shipped(past.fit_fusion(fitted.model, model, training), model) == _reported(release)
    assert _files(release.warehouse) == before


def test_without_features_the_missing_table_is_named(release: Release, tmp_path: Path) -> None:
    empty = StageContext.read_only(release.spark, release.slice.config(tmp_path / "empty"))
    with pytest.raises(InputContractError, match="'evaluation_item_features' does not exist"):
        export_past(empty, tmp_path / "past")


def _run(release: Release, *arguments: str) -> str:
    settings = [part for option in release.slice.options(release.warehouse) for part in ("--set", option)]
    command = [
        str(Path(sys.executable).with_name("recbatch")),
        *arguments,
        "--config",
        str(ROOT / "conf" / "demo.yaml"),
    ]
    done = subprocess.run([*command, *settings], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == EXIT_DONE, done.stdout
    return done.stdout


@pytest.mark.slow  # a program with a JVM
def test_tune_as_a_program(release: Release, tmp_path: Path) -> None:
    before = _files(release.warehouse)
    screen = _run(release, "tune", "--trials", "3", "--minutes", "10", "--output", str(tmp_path / "tuning"))
    assert _files(release.warehouse) == before
    with (tmp_path / "tuning" / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    assert float(trials[0]["ndcg"]) == pytest.approx(_reported(release), abs=1e-12)
    best = max((row for row in trials if row["ndcg"]), key=lambda row: float(row["ndcg"]))
    assert f"{float(best['ndcg']):.4f}" in screen
    overlay = load_config(
        [ROOT / "conf" / "demo.yaml", tmp_path / "tuning" / "best.yaml"], release.slice.options(release.warehouse)
    )
    # What the command line overrides stands above the file, as it would in a run.
    assert overlay.model.encoder == best["model.encoder"]


@pytest.mark.slow  # a program with a JVM
def test_the_learning_curve_as_a_program(release: Release, tmp_path: Path) -> None:
    before = _files(release.warehouse)
    screen = _run(release, "learning-curve", "--shares", "0.5,1", "--output", str(tmp_path / "curve"))
    assert _files(release.warehouse) == before
    with (tmp_path / "curve" / "learning_curve.csv").open() as file:
        points = list(csv.DictReader(file))
    assert [point["buckets"] for point in points] == ["4", "8"]
    assert f"{int(points[1]['behaviours']):,} behaviours, a doubling of the data changed NDCG@10 by" in screen
