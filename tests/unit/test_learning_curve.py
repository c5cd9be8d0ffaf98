"""Specification of the learning curve: more users to learn from, the same ones to be judged by."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recbatch.config.learning import ModelSection, TrainingSection
from recbatch.errors import UsageError
from recbatch.training import learning_curve as curve
from recbatch.training.dataset import open_sequences, stop_before
from recbatch.training.judging import Past, shipped
from recbatch.training.learning_curve import Point, last_gain, learning_curve
from recbatch.training.run import Progress
from recbatch.training.space import Setting
from recbatch.training.trainer import fit
from tests.unit.followers import WINDOW, make_past, silent

MODEL = ModelSection(dim=16, context_length=20, dropout=0.1)
TRAINING = TrainingSection(loss="full", examples="windows", max_epochs=5, batch_rows=8, learning_rate=1e-2, threads=1)
SETTING = Setting(MODEL, TRAINING)
SHARES = [0.125, 0.25, 0.5, 1.0]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return make_past(tmp_path_factory.mktemp("sequences"), buckets=8)


@pytest.fixture(scope="module")
def points(past: Past, tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    return learning_curve(past, SETTING, SHARES, tmp_path_factory.mktemp("cut"), lambda _: silent, lambda _: None)


def test_the_shares_grow_to_everything_before_the_window(past: Past, points: list[Point]) -> None:
    assert [point.share for point in points] == SHARES
    assert [point.buckets for point in points] == [1, 2, 4, 8]
    parts = open_sequences(past.inputs.files)
    everything = sum(int((part.columns["event_time"] < WINDOW.start).sum()) for part in parts)
    behaviours = [point.behaviours for point in points]
    assert behaviours[-1] == everything
    assert behaviours == sorted(behaviours)
    assert len(set(behaviours)) == 4


def test_every_share_is_judged_on_the_users_of_the_smallest(past: Past, points: list[Point], tmp_path: Path) -> None:
    (judged,) = {point.judged for point in points}
    seen: list[Past] = []
    for file in past.inputs.files:
        one = replace(past, inputs=replace(past.inputs, files=[file]))
        fitted = fit(one.inputs, MODEL, TRAINING, past.seed, past.window, silent)
        found = one.fit_fusion(fitted.model, MODEL, TRAINING)
        if (shipped(found, MODEL), found.bare_ndcg) == (points[0].ndcg, points[0].network_ndcg):
            seen.append(one)
    (smallest,) = seen  # the smallest share is one of the files, whole, and trained as by itself
    assert judged == len(smallest.validation(TRAINING))


def test_what_is_added_is_learnt_from_whole_before_the_window(past: Past, tmp_path: Path) -> None:
    learning_curve(past, SETTING, [0.125, 1.0], tmp_path, lambda _: silent, lambda _: None)
    cut = {file.name: file for file in tmp_path.iterdir()}
    assert len(cut) == 7
    for file in past.inputs.files:
        if file.name not in cut:
            continue
        whole, shortened = open_sequences([file]), open_sequences([cut[file.name]])
        assert sum(map(len, shortened)) == sum(map(len, whole))
        for name in whole[0].columns:
            known = [part.select(part.offsets[:-1], stop_before(part, WINDOW.start)).columns[name] for part in whole]
            assert np.array_equal(np.concatenate([part.columns[name] for part in shortened]), np.concatenate(known))


def test_more_users_teach_the_network_more(points: list[Point]) -> None:
    assert points[-1].network_ndcg > points[0].network_ndcg + 0.05


def test_the_last_doubling_as_a_sentence() -> None:
    def point(share: float, behaviours: int, ndcg: float) -> Point:
        return Point(share, 1, behaviours, np.full(50, ndcg), ndcg, 3, 1.0)

    points = [point(0.125, 100, 0.1), point(0.25, 1000, 0.2), point(1.0, 4000, 0.24)]
    assert last_gain(points) == (
        "From 0.25 to 1 of the buckets, 1,000 to 4,000 behaviours, a doubling of the data changed NDCG@10 by +0.0200 "
        "(+10.0%), with a standard error of 0.0000, measured on 50 users."
    )
    assert "by -0.0500 (-50.0%)" in last_gain([point(0.5, 10, 0.1), point(1.0, 20, 0.05)])
    assert "by +0.1000, with" in last_gain([point(0.5, 10, 0.0), point(1.0, 20, 0.1)])
    assert last_gain([point(0.5, 10, 0.1), point(1.0, 10, 0.1)]) == (
        "The buckets after 0.5 hold no behaviour to learn from."
    )
    # Two doublings; differences 0 and 0.4 have the deviation 0.2, and 0.2 / sqrt(4) / 2 is 0.05.
    before = replace(point(0.25, 10, 0.0), of_users=np.array([0.5, 0.0, 0.5, 0.0]))
    after = replace(point(1.0, 40, 0.0), of_users=np.array([0.5, 0.4, 0.5, 0.4]))
    assert "with a standard error of 0.0500, measured on 4 users" in last_gain([before, after])
    assert before.error == pytest.approx(0.125)


def test_the_largest_share_decides_the_loss(past: Past, tmp_path: Path) -> None:
    told: list[float] = []
    training = TRAINING.model_copy(update={"loss": "auto", "max_epochs": 1, "full_epoch_seconds": 1e-9})
    ended: list[Point] = []

    def progress(share: float) -> Progress:
        told.append(share)
        return silent

    found = learning_curve(past, Setting(MODEL, training), [0.25, 1.0], tmp_path, progress, ended.append)
    assert told == [1.0, 0.25]
    assert found == ended[::-1]
    sampled = Setting(MODEL, training.model_copy(update={"loss": "sampled"}))
    again = learning_curve(past, sampled, [0.25, 1.0], tmp_path, lambda _: silent, lambda _: None)
    assert [one.ndcg for one in again] == [one.ndcg for one in found]


def test_figures_and_picture(points: list[Point], tmp_path: Path) -> None:
    curve.write(points, tmp_path)
    with (tmp_path / curve.FIGURES).open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["share"]), float(row["ndcg"])) for row in rows] == [(one.share, one.ndcg) for one in points]
    assert (tmp_path / curve.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_shares_that_are_all_the_same_buckets_are_refused(past: Past, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the shares 0\.01, 0\.1 of 8 buckets are all 1"):
        learning_curve(past, SETTING, [0.01, 0.1], tmp_path, lambda _: silent, lambda _: None)
