"""The configuration as typed sections. `conf/base.yaml` states the same defaults with units; a test compares them.

Every section forbids unknown keys, so that a misspelt option is an error and never a silent default.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from recbatch.config.base import PositiveInt, Section, Share
from recbatch.config.cleaning import CleaningSection
from recbatch.config.inputs import InputSection, Missing, unlearnable
from recbatch.config.learning import ModelSection, TrainingSection


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


Normalization = Literal["zscore", "minmax", "robust", "log1p", "none"]


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
    cut_alignment_days: Annotated[int, Field(ge=0)] = 7
    price: Normalization = "zscore"
    quantity: Normalization = "minmax"
    numbers: Normalization = "zscore"
    item_price: Missing = Missing(strategy="median")
    recent_days: PositiveInt = 28
    neighbours: NeighboursSection = NeighboursSection()

    @model_validator(mode="after")
    def _items_without_a_price_stay(self) -> FeaturesSection:
        if self.item_price.strategy == "drop":
            raise ValueError("'item_price' cannot drop an item; use another strategy")
        return self


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

    @model_validator(mode="after")
    def _prices_are_filled_from_attributes_that_are_there(self) -> Config:
        attributes = {} if self.input.items is None else self.input.items.attributes
        problem = unlearnable("item_price", self.features.item_price, attributes)
        if problem:
            raise ValueError(f"features.item_price: {problem}")
        return self
