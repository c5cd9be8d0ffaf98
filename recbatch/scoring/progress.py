"""What a scoring job has done so far, while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from recbatch.context import Progress
from recbatch.scoring.worker import Meters

_SECONDS_BETWEEN_LOOKS = 1.0


@contextmanager
def watched(meters: Meters, progress: Progress, buckets: int, items: float) -> Iterator[None]:
    """Report buckets done, pairs a second and the time left, until the block ends. Tasks report when they end."""
    ended = threading.Event()

    def watch() -> None:
        began = time.monotonic()
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            done, seconds = meters.buckets.value, time.monotonic() - began
            if done:
                rate = meters.users.value * items / seconds / 1e6
                left = seconds * (buckets - done) / done
                progress.advance("scoring buckets", done, buckets, f"{rate:,.0f} million pairs/s, {left:,.0f} s left")

    thread = threading.Thread(target=watch, name="scoring progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
