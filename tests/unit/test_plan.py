"""Specification of the plan of a scoring run: its figures follow from the sizes and the measurement."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recbatch.ranking.screen import Arithmetic
from recbatch.scoring.plan import Calibration, Plan

PLAN = Plan(
    users=1_000,
    items=10_000,
    k=20,
    tile_items=4_096,
    batch_users=256,
    cores=4,
    tasks=16,
    arithmetic=Arithmetic.INT8,
    scorer_bytes=5_000_000,
    mapped=False,
    screen_bytes=760_000,
    calibration=Calibration(seconds_a_user=0.002, bytes_a_row=60.0),
)


def test_counts() -> None:
    assert (PLAN.pairs, PLAN.tiles, PLAN.rows, PLAN.output_bytes) == (10_000_000, 3, 20_000, 1_200_000)
    assert replace(PLAN, items=8_192).tiles == 2


def test_lists_are_no_longer_than_the_catalogue() -> None:
    assert replace(PLAN, items=12).rows == 12_000


def test_the_time_is_divided_by_the_cores_that_have_a_task() -> None:
    assert PLAN.seconds == pytest.approx(0.5)
    assert replace(PLAN, tasks=2).seconds == pytest.approx(1.0)


def test_a_broadcast_scorer_is_in_every_worker_twice_and_a_mapped_one_is_shared() -> None:
    products = 256 * 4_096 * 4
    assert (PLAN.worker_bytes, PLAN.shared_bytes) == (760_000 + products + 10_000_000, 0)
    mapped = replace(PLAN, mapped=True)
    assert (mapped.worker_bytes, mapped.shared_bytes) == (760_000 + products, 5_000_000)


@pytest.mark.parametrize(("arithmetic", "width"), [("int8", 4), ("float32", 4), ("bfloat16", 6)])
def test_products_of_one_tile(arithmetic: str, width: int) -> None:
    plan = replace(PLAN, arithmetic=Arithmetic(arithmetic))
    assert plan.product_bytes == 256 * 4_096 * width
    assert replace(plan, items=100).product_bytes == 256 * 100 * width


def test_every_figure_is_told_with_its_meaning() -> None:
    told = {name: value for name, value, meaning in PLAN.figures() if meaning}
    assert told["pairs"] == "10,000,000"
    assert told["time"] == "0.5 s"
    assert told["memory a worker"] == "14.3 MiB"
    assert told["memory a host"] == "0 bytes"
    assert told["size"] == "1.1 MiB"
