"""Which rows of the log are kept: rules, duplicates, bots, missing values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recbatch.config.base import PositiveInt, Section, Share
from recbatch.config.inputs import Missing


class Rule(Section):
    """A row for which the SQL condition `when` (over the columns of the cleaned table) holds is rejected."""

    reason: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    when: str


class BotsSection(Section):
    """Limits on the distinct events of one user; null: no limit."""

    max_events_a_day: PositiveInt | None = 10_000
    max_events_a_minute: PositiveInt | None = 1_000

    def limits(self) -> dict[str, int]:
        """The limits that are set, by "day" and "minute"."""
        found = {"day": self.max_events_a_day, "minute": self.max_events_a_minute}
        return {span: limit for span, limit in found.items() if limit is not None}


class CleaningSection(Section):
    duplicate_key: list[Literal["user_id", "item_id", "event_type", "event_time", "basket_id", "query"]] = [
        "user_id",
        "item_id",
        "event_type",
        "event_time",
        "basket_id",
    ]
    rules: list[Rule] = [
        Rule(reason="negative_quantity", when="quantity < 0"),
        Rule(reason="zero_quantity", when="quantity = 0"),
        Rule(reason="negative_price", when="price < 0"),
    ]
    unknown_items: Literal["reject", "keep"] = "reject"
    bots: BotsSection = BotsSection()
    quantity: Missing = Missing(strategy="constant", value=1.0)
    price: Missing = Missing(strategy="keep")
    max_rejected_share: Share = 0.2

    @model_validator(mode="after")
    def _events_are_those_of_a_user(self) -> CleaningSection:
        if self.duplicate_key and "user_id" not in self.duplicate_key:
            raise ValueError(f"'duplicate_key' must hold user_id (got {self.duplicate_key})")
        if not self.duplicate_key and self.bots.limits():
            raise ValueError(
                "'bots' counts distinct events, for which 'duplicate_key' must not be empty; set both limits to null"
            )
        return self
