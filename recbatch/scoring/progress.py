"""What a scoring job has done so far, while it runs."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

from recbatch.context import Progress, watched
from recbatch.scoring.worker import Meters


def watched_scoring(meters: Meters, progress: Progress, buckets: int, items: float) -> AbstractContextManager[None]:
    """Report buckets done, pairs a second and the time left, until the block ends. Tasks report when they end."""
    began = time.monotonic()

    def look() -> None:
        done, seconds = meters.buckets.value, time.monotonic() - began
        if done:
            rate = meters.users.value * items / seconds / 1e6
            left = seconds * (buckets - done) / done
            progress.advance("scoring buckets", done, buckets, f"{rate:,.0f} million pairs/s, {left:,.0f} s left")

    return watched(look)
