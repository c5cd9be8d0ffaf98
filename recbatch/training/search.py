"""Searches options of model and training for the best validation NDCG@10 of the score as it is shipped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import numpy as np

from recbatch.errors import ModelError, UsageError
from recbatch.training.dataset import open_sequences
from recbatch.training.judging import Past, shipped
from recbatch.training.run import Progress
from recbatch.training.space import Setting, Space
from recbatch.training.trainer import fit

if TYPE_CHECKING:
    import optuna

State = Literal["finished", "pruned", "stopped", "failed"]

_RANDOM_TRIALS = 8  # before the sampler has seen enough to prefer anything
_TRIALS_OF_A_MEDIAN, _EPOCHS_OF_GRACE = 4, 2  # finished ones, and epochs, before a trial may be pruned


@dataclass(frozen=True)
class Trial:
    """A setting and what became of it.

    ndcg: validation NDCG@10 of the score as shipped; None unless finished. epoch_ndcg: of the best epoch, by which
    trials are pruned; None where none ended. seconds: of training, without validation. weights: numbers that the
    network consists of; None unless finished. note: why it did not finish, for people.
    """

    number: int
    state: State
    setting: Setting
    ndcg: float | None
    epoch_ndcg: float | None
    seconds: float
    epochs: int
    weights: int | None = None
    note: str = ""


def require_optuna() -> None:
    """Raises UsageError where the package is not installed."""
    if find_spec("optuna") is None:
        raise UsageError(
            "the package 'optuna' is not installed", remedy="install the extra: pip install recbatch[tune]"
        )


def search(
    past: Past,
    base: Setting,
    trials: int,
    minutes: float,
    progress: Callable[[int], Progress],
    ended: Callable[[Sequence[Trial]], None],
) -> list[Trial]:
    """Train settings around `base`, which is trial 0, until there are `trials` of them or the time is over.

    No trial but the first begins after `minutes`; one that runs then stops at the end of its epoch. The first is
    always trained to its end. With the same seed, inputs and threads the trials are the same, as far as time allows.
    progress: from a trial's number to who is told of its steps. ended: is given all trials after each of them.

    Raises:
        UsageError: optuna is not installed.
        ModelError: there is nothing to validate on.
    """
    require_optuna()
    from optuna import create_study, logging, pruners, samplers
    from optuna.trial import TrialState

    deadline = time.monotonic() + 60 * minutes
    logging.set_verbosity(logging.WARNING)
    space = Space(base, _longest(past))
    study = create_study(
        direction="maximize",
        sampler=samplers.TPESampler(n_startup_trials=_RANDOM_TRIALS, seed=past.seed),
        pruner=pruners.MedianPruner(n_startup_trials=_TRIALS_OF_A_MEDIAN, n_warmup_steps=_EPOCHS_OF_GRACE),
    )
    study.enqueue_trial(space.default())
    states = {"pruned": TrialState.PRUNED, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
    done: list[Trial] = []
    while len(done) < trials and (not done or time.monotonic() < deadline):
        asked = study.ask()
        watch = _Watch(asked, deadline if done else None, progress(len(done)))
        trial = _tried(past, space.suggest(asked), watch, len(done))
        study.tell(asked, trial.ndcg, state=states.get(trial.state, TrialState.COMPLETE))
        done.append(trial)
        ended(done)
    return done


def best_of(trials: Sequence[Trial]) -> Trial:
    """The finished trial with the highest NDCG@10; of equals the first. Raises ModelError where none finished."""
    finished = [trial for trial in trials if trial.ndcg is not None]
    if not finished:
        raise ModelError(
            f"none of {len(trials)} trials finished; the first: {trials[0].note}",
            remedy="lower training.learning_rate, or give more trials or minutes",
        )
    return max(finished, key=lambda trial: trial.ndcg or 0.0)


class _EndedError(Exception):
    """A trial is not worth, or not given, another epoch."""

    def __init__(self, state: State, note: str) -> None:
        super().__init__(note)
        self.state: State = state


class _Watch:
    """Hears of every step of a trial, and ends it from inside of the training."""

    def __init__(self, trial: optuna.Trial, deadline: float | None, told: Progress) -> None:
        self._trial, self._deadline, self._told = trial, deadline, told
        self._since = time.monotonic()
        self.seconds, self.epochs = 0.0, 0
        self.best: float | None = None

    def __call__(self, epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None:
        self._told(epoch, step, steps, loss, metric)
        now, began = time.monotonic(), self._since
        self._since = now
        if metric is None:
            self.seconds += now - began
            return
        self.epochs = epoch
        self.best = metric if self.best is None else max(self.best, metric)
        self._trial.report(metric, epoch)
        if self._trial.should_prune():
            raise _EndedError("pruned", f"below the median of the trials before it in epoch {epoch}")
        if self._deadline is not None and now >= self._deadline:
            raise _EndedError("stopped", f"the time was over after epoch {epoch}")


def _tried(past: Past, setting: Setting, watch: _Watch, number: int) -> Trial:
    state: State = "finished"
    ndcg, weights, note = None, None, ""
    try:
        fitted = fit(past.inputs, setting.model, setting.training, past.seed, past.window, watch)
        if fitted.diverged is None:
            result = past.fit_fusion(fitted.model, setting.model, setting.training)
            ndcg = shipped(result, setting.model)
            weights = sum(weight.numel() for weight in fitted.model.parameters())
        else:
            # The refit on all data would go the same way, and has no earlier epoch to fall back on.
            state, note = "failed", fitted.diverged
    except _EndedError as end:
        state, note = end.state, str(end)
    except ModelError as error:
        state, note = "failed", error.what
    return Trial(number, state, setting, ndcg, watch.best, watch.seconds, watch.epochs, weights, note)


def _longest(past: Past) -> int:
    """Behaviours of the longest sequence. Raises ModelError where there is none."""
    longest = [int(np.diff(part.offsets).max(initial=0)) for part in open_sequences(past.inputs.files)]
    if not any(longest):
        raise ModelError("there is no sequence to learn from", remedy="give more history, or run `recbatch features`")
    return max(longest)
