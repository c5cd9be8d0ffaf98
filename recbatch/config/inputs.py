"""Where the raw files are, what their columns mean, and what to do about a missing value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from recbatch.config.base import PositiveInt, Section

# The strategies that learn from an item's other attributes.
MODELS = ("knn", "regression")
# The kinds that they learn from, and the strategies for other kinds, of which nothing can be learnt.
_LEARNED_FROM = ("category", "number")
_UNLEARNED = {"text": ("keep", "drop", "constant"), "vector": ("keep", "drop")}


class RawColumn(Section):
    """Where a column comes from: a raw column, an SQL expression over raw columns, or a constant; exactly one."""

    column: str | None = None
    sql: str | None = None
    constant: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_bare_name_is_a_column(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> RawColumn:
        if sum(part is not None for part in (self.column, self.sql, self.constant)) != 1:
            raise ValueError("give exactly one of 'column', 'sql' and 'constant'")
        return self


class TimeFormat(Section):
    format: str = "yyyy-MM-dd HH:mm:ss"
    unit: Literal["text", "seconds", "milliseconds"] = "text"
    zone: str = "UTC"
    earliest: str | None = None
    latest: str | None = None


class EventColumns(Section):
    user_id: RawColumn
    item_id: RawColumn
    event_time: RawColumn
    event_type: RawColumn = RawColumn(constant="purchase")
    quantity: RawColumn | None = None
    price: RawColumn | None = None
    weight: RawColumn | None = None
    basket_id: RawColumn | None = None
    query: RawColumn | None = None


class Missing(Section):
    """What to do with a missing value; `value`, `by` and `neighbours` belong to one strategy each."""

    strategy: Literal["keep", "drop", "constant", "mean", "median", "mode", "group_mean", "knn", "regression"] = "keep"
    value: str | float | None = None
    by: str | None = None
    neighbours: PositiveInt | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_bare_name_is_a_strategy(cls, value: Any) -> Any:
        return {"strategy": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _constant_has_a_value(self) -> Missing:
        if (self.strategy == "constant") != (self.value is not None):
            raise ValueError("'value' goes with the strategy 'constant', and only with it")
        if (self.strategy == "group_mean") != (self.by is not None):
            raise ValueError("'by' goes with the strategy 'group_mean', and only with it")
        if self.strategy != "knn" and self.neighbours is not None:
            raise ValueError("'neighbours' goes with the strategy 'knn', and only with it")
        return self


class EventsInput(Section):
    path: str
    format: Literal["csv", "json", "parquet", "delta"] = "csv"
    options: dict[str, str] = {}
    columns: EventColumns
    time: TimeFormat = TimeFormat()
    event_types: dict[str, str] = {}
    files_per_batch: PositiveInt | None = None

    @model_validator(mode="after")
    def _event_types_are_declared(self) -> EventsInput:
        if self.columns.event_type.constant is None and not self.event_types:
            raise ValueError("'event_types' must map the values of the event_type column, for example {view: view}")
        return self

    def types(self) -> list[str]:
        """The event types of the cleaned table; the position of a type is its code."""
        if self.event_types:
            return sorted(set(self.event_types.values()))
        return [str(self.columns.event_type.constant)]


class ItemAttribute(Section):
    """One attribute; `separator` belongs to categories, `ngrams` and `buckets` to texts, `size` to vectors."""

    source: RawColumn
    kind: Literal["category", "number", "text", "vector"] = "category"
    separator: str | None = None
    ngrams: PositiveInt | None = None
    buckets: PositiveInt | None = None
    size: PositiveInt | None = None
    missing: Missing = Missing()

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> ItemAttribute:
        if self.kind != "category" and self.separator is not None:
            raise ValueError(f"'separator' is for categories; a {self.kind} has one value")
        if self.kind != "text" and (self.ngrams is not None or self.buckets is not None):
            raise ValueError("'ngrams' and 'buckets' go with the kind 'text', and only with it")
        if (self.kind == "vector") != (self.size is not None):
            raise ValueError("'size', how many numbers a vector has, goes with the kind 'vector', and only with it")
        return self

    @model_validator(mode="after")
    def _strategy_fits_the_kind(self) -> ItemAttribute:
        if self.kind in _UNLEARNED and self.missing.strategy not in _UNLEARNED[self.kind]:
            allowed = ", ".join(_UNLEARNED[self.kind])
            raise ValueError(f"missing strategy '{self.missing.strategy}' is not for a {self.kind}; use {allowed}")
        if self.kind == "category" and self.missing.strategy in ("mean", "median", "group_mean"):
            raise ValueError(f"missing strategy '{self.missing.strategy}' is for numbers; use 'mode' or 'constant'")
        if self.separator is not None and self.missing.strategy in MODELS:
            raise ValueError(f"missing strategy '{self.missing.strategy}' gives one value; with 'separator' use 'mode'")
        if self.kind == "number" and isinstance(self.missing.value, str):
            raise ValueError(f"the constant {self.missing.value!r} of a number must be a number")
        return self


class ItemsInput(Section):
    path: str
    format: Literal["csv", "json", "parquet", "delta"] = "csv"
    options: dict[str, str] = {}
    item_id: RawColumn
    title: RawColumn | None = None
    valid_from: RawColumn | None = None
    valid_to: RawColumn | None = None
    time: TimeFormat = TimeFormat()
    attributes: dict[str, ItemAttribute] = {}

    @model_validator(mode="after")
    def _the_price_in_the_log_keeps_its_name(self) -> ItemsInput:
        if "item_price" in self.attributes:
            raise ValueError("'item_price' is the mean price in the log; name the attribute otherwise, as 'list_price'")
        return self

    @model_validator(mode="after")
    def _fills_have_something_to_learn_from(self) -> ItemsInput:
        for name, attribute in self.attributes.items():
            problem = unlearnable(name, attribute.missing, self.attributes)
            if problem:
                raise ValueError(problem)
        return self


def unlearnable(name: str, missing: Missing, attributes: Mapping[str, ItemAttribute]) -> str | None:
    """What keeps the item attribute `name` from being filled in this way from `attributes`, in words."""
    categories = sorted(other for other, one in attributes.items() if one.kind == "category" and other != name)
    if missing.strategy == "group_mean" and missing.by not in categories:
        return f"'{name}' is to be filled by the mean of each '{missing.by}', which is none of {categories}"
    learned_from = [other for other, one in attributes.items() if one.kind in _LEARNED_FROM and other != name]
    if missing.strategy in MODELS and not learned_from:
        return f"'{name}' is to be filled from the other attributes, and there is none; use 'mode' or 'constant'"
    return None


class InputSection(Section):
    events: EventsInput
    items: ItemsInput | None = None
