"""The network and how it is fitted. `conf/base.yaml` states the same defaults with units."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recbatch.config.base import PositiveInt, Section

Encoder = Literal["conv", "conv_pool", "gru"]
LossName = Literal["full", "sampled", "bce", "mse"]
ScheduleName = Literal["constant", "inverse_decay", "cosine", "plateau"]

_Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
_NotNegative = Annotated[float, Field(ge=0.0)]
_Positive = Annotated[float, Field(gt=0.0)]


class ModelSection(Section):
    encoder: Encoder = "conv"
    dim: Annotated[int, Field(ge=4)] = 128
    blocks: PositiveInt = 1
    context_length: PositiveInt = 50
    short_kernel: PositiveInt = 4
    dropout: _Rate = 0.5
    id_dropout: _Rate = 0.1
    fused: bool = True
    fusion_behaviours: PositiveInt = 50
    fusion_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9

    @model_validator(mode="after")
    def _pooled(self) -> ModelSection:
        if self.encoder == "conv_pool" and self.dim % 4:
            raise ValueError(
                f"encoder conv_pool halves model.dim twice, which must be a multiple of 4; it is {self.dim}"
            )
        return self


class TrainingSection(Section):
    sample_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    targets: Literal["all", "new"] = "all"
    examples: Literal["prefixes", "windows"] = "prefixes"
    epoch_positions: PositiveInt | None = None
    loss: Literal["auto"] | LossName = "auto"
    full_epoch_seconds: _Positive = 120.0
    negatives: PositiveInt = 4096
    label_smoothing: _Rate = 0.1
    event_type_weights: dict[str, _NotNegative] = Field(default_factory=dict)
    recency_half_life_days: _Positive | None = None
    batch_rows: PositiveInt = 256
    optimizer: Literal["adamw", "adam", "rmsprop", "sgd"] = "adamw"
    learning_rate: _Positive = 1e-3
    momentum: _Rate = 0.9
    schedule: ScheduleName = "constant"
    schedule_decay: _Positive = 0.1
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: _NotNegative = 0.0
    l1: _NotNegative = 0.0
    averaging: _Rate = 0.999
    max_epochs: PositiveInt = 60
    patience: PositiveInt = 5
    threads: PositiveInt | None = None
