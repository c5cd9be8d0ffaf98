"""What a training tells people while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable

Advance = Callable[[str, int, int, str], None]


class Reported:
    """A `run.Progress` that tells `advance(task, done, total, detail)`: loss, last metric, and the time left.

    name: of the training. epochs: how many it has at most; early stopping may leave some out.
    """

    def __init__(self, advance: Advance, name: str, epochs: int) -> None:
        self._advance, self._name, self._epochs = advance, name, epochs
        self._metric = ""
        self._first: tuple[float, int] | None = None  # when the first step was told of, and its number

    def __call__(self, epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None:
        if metric is not None:
            self._metric = f", validation NDCG@10 {metric:.4f}"
        left = self._left((epoch - 1) * steps + step, self._epochs * steps)
        self._advance(f"{self._name} epoch {epoch}", step, steps, f"loss {loss:.3f}{self._metric}{left}")

    def _left(self, done: int, total: int) -> str:
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        began, first = self._first
        if not first < done < total:
            return ""
        minutes, seconds = divmod(round((now - began) / (done - first) * (total - done)), 60)
        return f", at most {minutes}:{seconds:02d} min left"
