"""Specification of the search: the configuration first, the same trials again, and a best one that loads."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from recbatch.config import Config, load_config
from recbatch.config.learning import ModelSection, TrainingSection
from recbatch.errors import ModelError, UsageError
from recbatch.training import trials as files
from recbatch.training.judging import Past, shipped
from recbatch.training.run import Progress
from recbatch.training.search import Trial, best_of, search
from recbatch.training.space import Setting
from recbatch.training.trainer import fit
from tests.unit.followers import make_past, silent

N_TRIALS = 10
# Too small a step, so that the search has something to find.
MODEL = ModelSection(dim=16, context_length=20, dropout=0.1)
TRAINING = TrainingSection(
    loss="full", examples="windows", max_epochs=5, batch_rows=16, learning_rate=1e-3, negatives=64, threads=1
)
BASE = Setting(MODEL, TRAINING)


def run(
    past: Past,
    base: Setting = BASE,
    trials: int = 2,
    minutes: float = 60.0,
    progress: Callable[[int], Progress] = lambda _: silent,
) -> list[Trial]:
    return search(past, base, trials, minutes, progress, lambda _: None)


def outcome(trial: Trial) -> tuple[object, ...]:
    """All of a trial but its time."""
    return trial.number, trial.state, trial.setting, trial.ndcg, trial.epoch_ndcg, trial.epochs, trial.weights


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return make_past(tmp_path_factory.mktemp("sequences"), buckets=1)


@pytest.fixture(scope="module")
def found(past: Past) -> list[Trial]:
    return run(past, trials=N_TRIALS)


def test_trial_0_is_the_configuration_and_the_best_is_no_worse(past: Past, found: list[Trial]) -> None:
    first, best = found[0], best_of(found)
    assert first.setting == BASE
    assert first.state == "finished"
    fitted = fit(past.inputs, MODEL, TRAINING, past.seed, past.window, silent)
    assert first.ndcg == shipped(past.fit_fusion(fitted.model, MODEL, TRAINING), MODEL)
    assert first.epochs == len(fitted.curve)
    assert best.ndcg is not None
    assert best.number > 0
    assert best.ndcg > first.ndcg
    assert all(trial.ndcg is None or trial.ndcg <= best.ndcg for trial in found)


def test_trials_differ_and_keep_what_is_not_searched(found: list[Trial]) -> None:
    assert [trial.number for trial in found] == list(range(N_TRIALS))
    assert len({str(trial.setting) for trial in found}) == N_TRIALS
    assert {trial.setting.training.max_epochs for trial in found} == {TRAINING.max_epochs}
    assert {trial.setting.model.fused for trial in found} == {True}
    assert {trial.setting.training.loss for trial in found} == {"full", "sampled"}
    assert all(trial.seconds > 0 for trial in found)


def test_pruned_trials_are_listed_with_the_reason(found: list[Trial], tmp_path: Path) -> None:
    pruned = [trial for trial in found if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial.ndcg is None
        assert trial.epoch_ndcg is not None
        assert trial.note == f"below the median of the trials before it in epoch {trial.epochs}"
    files.write_figures(found, tmp_path)
    with (tmp_path / files.FIGURES).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == [trial.state for trial in found]
    assert [row["note"] for row in rows if row["state"] == "pruned"] == [trial.note for trial in pruned]
    assert [float(row["ndcg"]) for row in rows if row["ndcg"]] == [t.ndcg for t in found if t.ndcg is not None]
    assert [int(row["model.dim"]) for row in rows] == [trial.setting.model.dim for trial in found]


def test_the_same_seed_gives_the_same_trials_and_another_one_others(past: Past, found: list[Trial]) -> None:
    again = run(past, trials=N_TRIALS)
    assert list(map(outcome, again)) == list(map(outcome, found))
    assert run(replace(past, seed=8))[1].setting != found[1].setting


def configuration(folder: Path) -> Path:
    path = folder / "base.yaml"
    path.write_text(
        f"""
warehouse: warehouse
seed: 7
input: {{events: {{path: raw, columns: {{user_id: u, item_id: i, event_time: t}}}}}}
model: {MODEL.model_dump()}
training: {TRAINING.model_dump(exclude_none=True)}
"""
    )
    return path


def trained_again(past: Past, config: Config) -> float:
    fitted = fit(past.inputs, config.model, config.training, config.seed, past.window, silent)
    return shipped(past.fit_fusion(fitted.model, config.model, config.training), config.model)


def test_the_overlay_loads_and_trains_to_the_same_figure(past: Past, found: list[Trial], tmp_path: Path) -> None:
    base = configuration(tmp_path)
    assert Setting(load_config([base]).model, load_config([base]).training) == BASE
    overlay = files.write_overlay(found, BASE, tmp_path)
    config = load_config([base, overlay])
    best = best_of(found)
    assert Setting(config.model, config.training) == best.setting
    assert trained_again(past, config) == best.ndcg
    changed = [line for line in overlay.read_text().splitlines() if line.startswith("  ")]
    assert len(changed) == len(best.setting.changes(BASE)) > 0


def test_where_nothing_is_better_the_overlay_changes_nothing(found: list[Trial], tmp_path: Path) -> None:
    base, overlay = configuration(tmp_path), files.write_overlay(found[:1], BASE, tmp_path)
    assert load_config([base, overlay]) == load_config([base])


def test_no_time_still_gives_the_configuration(past: Past, found: list[Trial]) -> None:
    (only,) = run(past, trials=5, minutes=0.0)
    assert outcome(only) == outcome(found[0])
    assert best_of([only]) is only


def test_a_trial_is_stopped_at_the_end_of_the_epoch_in_which_the_time_is_over(past: Past) -> None:
    began = time.monotonic()
    run(past, trials=1)
    budget = 3 * (time.monotonic() - began)

    def late(epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None:
        if metric is not None:
            time.sleep(budget)

    found = run(past, trials=5, minutes=budget / 60, progress=lambda number: late if number else silent)
    assert [trial.state for trial in found] == ["finished", "stopped"]
    assert found[1].epochs == 1
    assert found[1].ndcg is None
    assert found[1].seconds < budget  # what it slept is no training
    assert found[1].note == "the time was over after epoch 1"


def test_a_trial_that_diverges_has_failed_and_the_search_goes_on(past: Past, tmp_path: Path) -> None:
    base = Setting(MODEL, TRAINING.model_copy(update={"learning_rate": 1e30}))
    seen: list[int] = []
    found = search(past, base, 3, 60.0, lambda _: silent, lambda done: seen.append(len(done)))
    assert seen == [1, 2, 3]
    assert found[0].state == "failed"
    assert found[0].ndcg is None
    assert found[0].note.startswith("the training loss is nan in step")
    files.write_figures(found, tmp_path)
    assert len((tmp_path / files.FIGURES).read_text().splitlines()) == 4
    with pytest.raises(ModelError, match=r"none of 1 trials finished; the first: the training loss is nan"):
        best_of(found[:1])


def test_the_bare_network_is_judged_where_it_is_what_is_shipped(past: Past) -> None:
    base = Setting(MODEL.model_copy(update={"fused": False}), TRAINING)
    (only,) = run(replace(past, inputs=replace(past.inputs, popularity=None)), base, trials=1)
    assert only.ndcg == pytest.approx(only.epoch_ndcg, abs=1e-12)
    assert not {"model.fusion_decay", "model.fusion_behaviours"} & only.setting.changes(base).keys()


@pytest.mark.parametrize(
    "base",
    [
        Setting(
            ModelSection(dim=6, blocks=5, context_length=500, short_kernel=12, dropout=0.9, id_dropout=0.0), TRAINING
        ),
        Setting(
            ModelSection(dim=4, context_length=1, fusion_behaviours=1, fusion_decay=0.2),
            TrainingSection(learning_rate=1.0, batch_rows=1, loss="mse", averaging=0.5, label_smoothing=0.5, threads=1),
        ),
    ],
)
def test_a_configuration_beyond_the_usual_is_trial_0_as_well(past: Past, base: Setting) -> None:
    short = Setting(base.model, base.training.model_copy(update={"max_epochs": 1, "batch_rows": 512}))
    found = run(past, short, trials=2)
    assert found[0].setting == short
    assert found[1].setting != short


def test_the_front_of_quality_and_cost(found: list[Trial], tmp_path: Path) -> None:
    def made(number: int, seconds: float, ndcg: float | None) -> Trial:
        return Trial(number, "failed" if ndcg is None else "finished", BASE, ndcg, ndcg, seconds, 1)

    some = [made(0, 5.0, 0.3), made(1, 1.0, 0.1), made(2, 2.0, 0.1), made(3, 9.0, 0.3), made(4, 0.1, None)]
    assert [trial.number for trial in files.pareto_front(some)] == [1, 0]
    front = files.pareto_front(found)
    assert front[-1] == best_of(found)
    picture = files.write_picture(found, tmp_path)
    assert picture is not None
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_optuna_the_extra_is_named(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)  # as Python marks a package that cannot be imported
    with pytest.raises(UsageError, match=r"(?s)optuna.*recbatch\[tune\]"):
        run(past)
