"""What a training tells while it runs."""

from __future__ import annotations

import pytest

from recbatch.training.reporting import Reported


def test_the_time_left_is_that_of_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int, str]] = []
    clock = [100.0]
    monkeypatch.setattr("recbatch.training.reporting.time.monotonic", lambda: clock[0])
    reported = Reported(lambda *one: told.append(one), "fit", epochs=3)
    # As a training that goes on in its second epoch: ten steps each, four seconds a step.
    reported(2, 1, 10, 5.0, None)
    clock[0] += 36.0
    reported(2, 10, 10, 4.0, None)
    clock[0] += 4.0
    reported(2, 10, 10, 4.5, 0.125)
    reported(3, 10, 10, 3.0, None)
    assert told == [
        ("fit epoch 2", 1, 10, "loss 5.000"),
        ("fit epoch 2", 10, 10, "loss 4.000, at most 0:40 min left"),
        ("fit epoch 2", 10, 10, "loss 4.500, validation NDCG@10 0.1250, at most 0:44 min left"),
        ("fit epoch 3", 10, 10, "loss 3.000, validation NDCG@10 0.1250"),
    ]
