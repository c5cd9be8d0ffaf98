"""What can be wrong with a raw row, and what cleaning has to make of it: one table of kinds."""

from __future__ import annotations

from dataclasses import dataclass

ACCEPTED, EXACT_DUPLICATE, KEY_DUPLICATE, REJECTED = "accepted", "exact_duplicate", "key_duplicate", "rejected"
OUTCOMES = (ACCEPTED, EXACT_DUPLICATE, KEY_DUPLICATE, REJECTED)


@dataclass(frozen=True)
class Fault:
    """A kind of planted row.

    share: of all planted rows, about; 0 for those that are planted in another way. adds: whether the row comes beside
    a good one, which stays. needs: "text" for formats of lines, "milliseconds" or "wall" for one way to write times.
    """

    name: str
    share: float
    outcome: str = REJECTED
    reasons: tuple[str, ...] = ()
    adds: bool = False
    needs: str = ""


FAULTS = (
    Fault("exact_duplicate", 0.18, EXACT_DUPLICATE, adds=True),
    Fault("key_duplicate", 0.1, KEY_DUPLICATE, adds=True),
    Fault("malformed_record", 0.05, reasons=("malformed_record",), adds=True, needs="text"),
    Fault("late", 0.1, ACCEPTED),
    Fault("daylight_saving_hour", 0.04, ACCEPTED, needs="wall"),
    Fault("non_numeric_user_id", 0.03, ACCEPTED),
    Fault("unicode_user_id", 0.03, ACCEPTED),
    Fault("long_user_id", 0.01, ACCEPTED),
    Fault("missing_price", 0.04, ACCEPTED),
    Fault("future", 0.05, reasons=("event_time_out_of_range",)),
    Fault("seconds_for_milliseconds", 0.05, reasons=("event_time_wrong_unit",), needs="milliseconds"),
    Fault("impossible_time", 0.02, reasons=("invalid_event_time",), needs="text"),
    Fault("missing_time", 0.01, reasons=("missing_event_time",)),
    Fault("unknown_event_type", 0.04, reasons=("unknown_event_type",)),
    Fault("missing_event_type", 0.01, reasons=("missing_event_type",)),
    Fault("nan_price", 0.03, reasons=("invalid_price",)),
    Fault("price_in_words", 0.02, reasons=("invalid_price",), needs="text"),
    Fault("negative_price", 0.03, reasons=("negative_price",)),
    Fault("negative_quantity", 0.02, reasons=("negative_quantity",)),
    Fault("zero_quantity", 0.02, reasons=("zero_quantity",)),
    Fault("missing_user_id", 0.02, reasons=("missing_user_id",)),
    Fault("missing_item_id", 0.02, reasons=("missing_item_id",)),
    Fault("unknown_item", 0.04, reasons=("unknown_item",)),
    Fault("several", 0.02, reasons=("missing_user_id", "unknown_event_type", "negative_price", "negative_quantity")),
    # Whole visits that are delivered a second time, elsewhere in the log, as they were or with other prices.
    Fault("redelivered", 0.0, EXACT_DUPLICATE, adds=True),
    Fault("repriced", 0.0, KEY_DUPLICATE, adds=True),
    # Users with more events than a person has, and users with just as many as they may have.
    Fault("bot_volume", 0.0, reasons=("bot_volume",), adds=True),
    Fault("bot_volume_negative_price", 0.0, reasons=("bot_volume", "negative_price"), adds=True),
    Fault("bot_rate", 0.0, reasons=("bot_rate",), adds=True),
    Fault("bot_rate_negative_price", 0.0, reasons=("bot_rate", "negative_price"), adds=True),
    Fault("busy_user", 0.0, ACCEPTED, adds=True),
    Fault("busy_user_duplicate", 0.0, EXACT_DUPLICATE, adds=True),
)
# A row's kind is its place in FAULTS; a good row has NONE.
NONE = -1
CODES = {fault.name: code for code, fault in enumerate(FAULTS)}


def codes_of(*names: str) -> list[int]:
    return [CODES[name] for name in names]
