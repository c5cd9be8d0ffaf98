"""Fits a recommender: early stopping on a validation window, and the refit on all data for the epochs found."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from recbatch.config.learning import LossName, ModelSection, TrainingSection
from recbatch.cores import usable_cores
from recbatch.errors import ModelError
from recbatch.model.fusion import BARE
from recbatch.model.recommender import Recommender
from recbatch.training.checkpoint import Checkpoint
from recbatch.training.fingerprint import fingerprint
from recbatch.training.fusion import fit_bias
from recbatch.training.run import DivergedError, Inputs, Progress, Run
from recbatch.training.validation import Validation, Window


@dataclass(frozen=True)
class EpochResult:
    """Epoch (from 1), mean training loss (nats a position), validation NDCG@10, seconds of training and of both.

    learning_rate: of the epoch's last step.
    """

    epoch: int
    loss: float
    ndcg: float
    training_seconds: float
    seconds: float
    learning_rate: float


@dataclass(frozen=True)
class FitResult:
    """The model of the best epoch, in evaluation mode; that epoch's number; every epoch's figures; the loss taken.

    diverged: why it stopped before its time, for people; None where it did not.
    """

    model: Recommender
    epochs: int
    curve: tuple[EpochResult, ...]
    loss: LossName
    diverged: str | None = None


def fit(
    inputs: Inputs,
    model_config: ModelSection,
    config: TrainingSection,
    seed: int,
    window: Window,
    progress: Progress,
    checkpoint: Path | None = None,
    ended: Callable[[EpochResult], None] = lambda epoch: None,
) -> FitResult:
    """Learn from what lies before the window until its NDCG@10 has not risen for `patience` epochs.

    The same seed, data, threads and machine give the same weights, byte for byte, unless `loss: auto` is near the
    limit where its two choices meet; also where it was killed, and goes on from the file `checkpoint`. Where the
    loss is not finite any more, the best epoch so far is kept.

    ended: is given every epoch, those of an attempt that was killed again.

    Raises:
        ModelError: nothing to learn from or to validate on, or the loss is not finite in the first epoch.
    """
    with threads(config.threads), torch.random.fork_rng(devices=[]):
        kept = _Kept(checkpoint, lambda: fingerprint(inputs, model_config, config, seed, window.start))
        run, curve, best = kept.begin(partial(Run, inputs, model_config, config, seed, window.start), None)
        validation = Validation(run.parts, window, config.targets == "new", len(inputs.features), seed)
        for done in curve:
            ended(done)
        diverged = None
        while not _finished(curve, config):
            epoch = len(curve) + 1
            began = time.monotonic()
            try:
                loss = run.epoch(epoch, progress)
                trained = time.monotonic()
                ndcg = _judge(run.model, inputs, validation)
            except DivergedError as error:
                diverged = str(error)
                break
            run.judged(ndcg)
            if not curve or ndcg > max(one.ndcg for one in curve):
                best = copy.deepcopy(run.model.state_dict())
            seconds = trained - began, time.monotonic() - began
            curve.append(EpochResult(epoch, loss, ndcg, *seconds, run.learning_rate))
            ended(curve[-1])
            progress(epoch, run.steps, run.steps, loss, ndcg)
            kept.keep(run, best, curve)
    if not curve:
        raise ModelError(str(diverged), remedy=f"lower training.learning_rate (now {config.learning_rate})")
    run.model.load_state_dict(best)
    return FitResult(run.model.eval(), _best_epoch(curve), tuple(curve), run.loss, diverged)


class _Kept:
    """The file that a training goes on from, or none. name: what tells it from others, asked for where there is one."""

    def __init__(self, file: Path | None, name: Callable[[], str]) -> None:
        self._file, self._name = file, "" if file is None else name()

    def begin(
        self, start: Callable[[LossName | None], Run], loss: LossName | None
    ) -> tuple[Run, list[EpochResult], dict[str, Tensor]]:
        """A run at the end of the epochs that an earlier attempt has finished, these, and the weights of the best.

        start: makes a run with a loss: that of the earlier attempt, or `loss` where there was none.
        """
        found = None if self._file is None else Checkpoint.read(self._file, self._name)
        if found is None:
            return start(loss), [], {}
        run = start(found.others["loss"])
        run.restore(found.tensors, found.others)
        return run, [EpochResult(int(row[0]), *row[1:]) for row in found.curve], found.best

    def keep(self, run: Run, best: dict[str, Tensor], curve: Sequence[EpochResult]) -> None:
        if self._file is not None:
            Checkpoint(*run.state(), best, [list(astuple(one)) for one in curve]).write(self._file, self._name)


def _finished(curve: Sequence[EpochResult], config: TrainingSection) -> bool:
    return bool(curve) and (len(curve) >= config.max_epochs or len(curve) - _best_epoch(curve) >= config.patience)


def _best_epoch(curve: Sequence[EpochResult]) -> int:
    return max(curve, key=lambda result: result.ndcg).epoch


def _judge(model: Recommender, inputs: Inputs, validation: Validation) -> float:
    """NDCG@10 of the network, with the best weights of bias and trend where it is shipped with them.

    Raises DivergedError where it cannot be ranked by, as what it scores is not finite.
    """
    try:
        users, items = validation.encode(model, inputs.features)
        if inputs.popularity is None:
            return validation.ndcg(users, items)
        return fit_bias(validation, users, items, inputs.popularity, BARE)[1]
    except ModelError as error:
        raise DivergedError(error.what) from error


def refit(
    inputs: Inputs,
    model_config: ModelSection,
    config: TrainingSection,
    seed: int,
    epochs: int,
    loss: LossName,
    progress: Progress,
    metrics: Sequence[float] = (),
    checkpoint: Path | None = None,
) -> Recommender:
    """Learn from all data for the epochs, and with the loss, that `fit` found.

    metrics: what the epochs of `fit` were worth, so that the step sizes are the same. checkpoint: as in `fit`.

    Raises:
        ModelError: nothing to learn from, or the loss is not finite.
    """
    with threads(config.threads), torch.random.fork_rng(devices=[]):
        kept = _Kept(checkpoint, lambda: fingerprint(inputs, model_config, config, seed, None, epochs, loss))
        run, done, _ = kept.begin(partial(Run, inputs, model_config, config, seed, None), loss)
        for epoch in range(len(done) + 1, epochs + 1):
            began = time.monotonic()
            try:
                value = run.epoch(epoch, progress)
            except DivergedError as error:
                remedy = f"lower training.learning_rate (now {config.learning_rate})"
                raise ModelError(str(error), remedy=remedy) from error
            run.judged(metrics[epoch - 1] if epoch <= len(metrics) else None)
            seconds = time.monotonic() - began
            done.append(EpochResult(epoch, value, 0.0, seconds, seconds, run.learning_rate))
            kept.keep(run, {}, done)
    return run.model.eval()


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run torch on `count` threads, None for every core this process may use, and restore what was set before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or usable_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)
