"""The configuration as typed sections. `conf/base.yaml` states the same defaults with units; a test compares them.

Every section forbids unknown keys, so that a misspelt option is an error and never a silent default.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every section: immutable, unknown keys forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _flatten(prefix: str, settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Nested keys joined by dots and values as Spark writes them: YAML and overrides may give either form."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", str(value).lower() if isinstance(value, bool) else str(value)


class SparkSection(Section):
    master: str | None = None
    driver_memory: str = "4g"
    shuffle_partitions: PositiveInt | None = None
    packages: Literal["auto", "provided"] = "auto"
    settings: dict[str, str] = {}

    @field_validator("settings", mode="before")
    @classmethod
    def _dotted_text(cls, value: Any) -> Any:
        return dict(_flatten("", value)) if isinstance(value, dict) else value


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
    """What to do with a missing value; `value` belongs to the strategy `constant`."""

    strategy: Literal["keep", "drop", "constant", "mean", "median", "mode"] = "keep"
    value: str | float | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_bare_name_is_a_strategy(cls, value: Any) -> Any:
        return {"strategy": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _constant_has_a_value(self) -> Missing:
        if (self.strategy == "constant") != (self.value is not None):
            raise ValueError("'value' goes with the strategy 'constant', and only with it")
        return self


class Rule(Section):
    """A row for which the SQL condition `when` (over the columns of the cleaned table) holds is rejected."""

    reason: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    when: str


class EventsInput(Section):
    path: str
    format: Literal["csv", "json", "parquet", "delta"] = "csv"
    options: dict[str, str] = {}
    columns: EventColumns
    time: TimeFormat = TimeFormat()
    event_types: dict[str, str] = {}

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
    source: RawColumn
    kind: Literal["category", "number"] = "category"
    separator: str | None = None
    missing: Missing = Missing()

    @model_validator(mode="after")
    def _strategy_fits_the_kind(self) -> ItemAttribute:
        if self.kind == "category" and self.missing.strategy in ("mean", "median"):
            raise ValueError(f"missing strategy '{self.missing.strategy}' is for numbers; use 'mode' or 'constant'")
        if self.kind == "number" and self.separator is not None:
            raise ValueError("'separator' is for categories; a number has one value")
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


class InputSection(Section):
    events: EventsInput
    items: ItemsInput | None = None


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
    quantity: Missing = Missing(strategy="constant", value=1.0)
    price: Missing = Missing(strategy="keep")
    max_rejected_share: Share = 0.2


Normalization = Literal["zscore", "minmax", "none"]


class NeighboursSection(Section):
    window: PositiveInt = 10
    half_life_days: Annotated[float, Field(gt=0)] = 60.0
    source_power: Share = 0.5
    target_power: Share = 0.2
    per_item: PositiveInt = 100


class FeaturesSection(Section):
    buckets: PositiveInt = 64
    sequence_length: PositiveInt = 200
    holdout_days: Annotated[int, Field(ge=1)] = 28
    validation_days: Annotated[int, Field(ge=1)] = 28
    price: Normalization = "zscore"
    quantity: Normalization = "minmax"
    numbers: Normalization = "zscore"
    item_price: Missing = Missing(strategy="median")
    recent_days: PositiveInt = 28
    neighbours: NeighboursSection = NeighboursSection()

    @model_validator(mode="after")
    def _items_without_a_price_stay(self) -> FeaturesSection:
        if self.item_price.strategy == "drop":
            raise ValueError("'item_price' cannot drop an item; use keep, constant, mean or median")
        return self


class ModelSection(Section):
    encoder: Literal["conv"] = "conv"
    dim: Annotated[int, Field(ge=4)] = 64
    blocks: PositiveInt = 1
    context_length: PositiveInt = 50
    short_kernel: PositiveInt = 4
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    fused: bool = True
    fusion_behaviours: PositiveInt = 50
    fusion_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class TrainingSection(Section):
    sample_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    targets: Literal["all", "new"] = "all"
    loss: Literal["auto", "full", "sampled"] = "auto"
    full_epoch_seconds: Annotated[float, Field(gt=0)] = 120.0
    negatives: PositiveInt = 4096
    batch_rows: PositiveInt = 64
    optimizer: Literal["adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_epochs: PositiveInt = 20
    patience: PositiveInt = 2
    threads: PositiveInt | None = None


class EvaluationSection(Section):
    cutoffs: list[PositiveInt] = [10, 20]
    bootstrap_samples: PositiveInt = 1000
    min_ndcg_against_popularity: Annotated[float, Field(ge=0)] = 1.0

    @model_validator(mode="after")
    def _holds_the_cutoff_of_the_verdict(self) -> EvaluationSection:
        if 10 not in self.cutoffs:
            raise ValueError(f"'cutoffs' must hold 10, by which a model is judged (got {self.cutoffs})")
        return self


class ScoringSection(Section):
    k: PositiveInt = 100
    filter_viewed: bool = True
    partitions: PositiveInt | None = None
    tile_items: PositiveInt = 4096
    batch_users: PositiveInt = 256
    item_matrix: Literal["auto", "mapped", "copied"] = "auto"
    item_shards: PositiveInt = 1
    commit_seconds: Annotated[float, Field(gt=0)] = 300.0
    audience_items: tuple[str, ...] = ()
    audience_size: PositiveInt = 1000
    default_k: PositiveInt = 100


class PublishingSection(Section):
    min_user_coverage: Share = 0.95
    min_mean_list_length: Share = 0.9
    min_item_coverage: Share = 0.0


class Config(Section):
    """The whole configuration of a pipeline."""

    pipeline: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = "recbatch"
    warehouse: str
    seed: Annotated[int, Field(ge=0)] = 7
    input: InputSection
    spark: SparkSection = SparkSection()
    cleaning: CleaningSection = CleaningSection()
    features: FeaturesSection = FeaturesSection()
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    scoring: ScoringSection = ScoringSection()
    publishing: PublishingSection = PublishingSection()
