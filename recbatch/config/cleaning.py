"""Which rows of the log are kept: rules, duplicates, bots, missing values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recbatch.config.base import PositiveInt, Section, Share
from recbatch.config.inputs import MODELS, Missing


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
    weight: Missing = Missing(strategy="constant", value=1.0)
    basket_id: Missing = Missing(strategy="keep")
    query: Missing = Missing(strategy="keep")
    max_rejected_share: Share = 0.2

    def missing(self) -> dict[str, Missing]:
        """What is done about a missing value, by column of the log."""
        names = ("quantity", "price", "weight", "basket_id", "query")
        return {name: getattr(self, name) for name in names}

    @model_validator(mode="after")
    def _strategies_fit_the_columns(self) -> CleaningSection:
        for name, missing in self.missing().items():
            text = name in ("basket_id", "query")
            if missing.strategy in MODELS or (text and missing.strategy not in ("keep", "drop", "constant")):
                allowed = "keep, drop or constant" + ("" if text else ", mean, median, mode or group_mean")
                raise ValueError(f"'{name}' of an event can be missing in these ways: {allowed}")
            if missing.by not in (None, "item_id"):
                raise ValueError(f"'{name}' of an event has no group '{missing.by}'; use by: item_id")
            if not text and isinstance(missing.value, str):
                raise ValueError(f"the constant {missing.value!r} of '{name}' must be a number")
        return self

    @model_validator(mode="after")
    def _events_are_those_of_a_user(self) -> CleaningSection:
        if self.duplicate_key and "user_id" not in self.duplicate_key:
            raise ValueError(f"'duplicate_key' must hold user_id (got {self.duplicate_key})")
        if not self.duplicate_key and self.bots.limits():
            raise ValueError(
                "'bots' counts distinct events, for which 'duplicate_key' must not be empty; set both limits to null"
            )
        return self
