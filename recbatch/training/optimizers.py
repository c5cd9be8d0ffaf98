"""Optimisers and schedules of the step size, by name, and the moving average of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from recbatch.config.learning import TrainingSection

_LEAST_SHARE = 0.02  # of the learning rate, where the cosine ends


def make_optimizer(model: nn.Module, config: TrainingSection) -> torch.optim.Optimizer:
    """By name; biases, norms and other vectors are not decayed.

    adamw: Loshchilov & Hutter 2019, with weight decay apart from the gradient. adam (Kingma & Ba 2015), rmsprop
    (Tieleman & Hinton 2012) and sgd with momentum: the decay is added to the gradient, which is an L2 penalty.
    """
    weights = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.learning_rate, fused=True)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=config.learning_rate, momentum=config.momentum)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def add_l1(model: nn.Module, strength: float) -> None:
    """Add the gradient of strength * sum |w| over weight matrices to what is there."""
    for weight in model.parameters():
        if weight.ndim > 1 and weight.grad is not None:
            weight.grad.add_(weight.detach().sign(), alpha=strength)


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that every `update_parameters` moves by 1 - min(decay, (1 + n) / (10 + n)), n updates so far.

    An exponential moving average (Polyak & Juditsky 1992) that forgets the first, random weights within some steps.
    """

    @torch.no_grad()
    def follow(averaged: Any, current: Any, updates: Any) -> None:
        n = int(updates)
        torch._foreach_lerp_(averaged, current, 1.0 - min(decay, (1.0 + n) / (10.0 + n)))

    return AveragedModel(model, multi_avg_fn=follow)


class Schedule:
    """The step size over the course of a training.

    constant: lr0. inverse_decay: lr0 / (1 + decay * epoch), epoch from 0. cosine: lr0 (1 + cos(pi step / steps)) / 2,
    ending at 2% (Loshchilov & Hutter 2017). plateau: halved after an epoch, but one, without a better metric. All but
    plateau rise linearly over the first warmup_steps.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: TrainingSection, steps_an_epoch: int) -> None:
        self._config, self._steps = config, steps_an_epoch
        self._plateau = config.schedule == "plateau"
        self._scheduler: LambdaLR | ReduceLROnPlateau = (
            ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=1)
            if self._plateau
            else LambdaLR(optimizer, self._share)
        )

    def after_step(self) -> None:
        if isinstance(self._scheduler, LambdaLR):
            self._scheduler.step()

    def after_epoch(self, metric: float | None) -> None:
        if isinstance(self._scheduler, ReduceLROnPlateau) and metric is not None:
            self._scheduler.step(metric)

    def state(self) -> dict[str, object]:
        """What `restore` takes; numbers only."""
        kept = self._scheduler.state_dict()
        return {key: value for key, value in kept.items() if isinstance(value, int | float | list)}

    def restore(self, state: dict[str, object]) -> None:
        self._scheduler.load_state_dict({**self._scheduler.state_dict(), **state})

    def _share(self, step: int) -> float:
        config = self._config
        warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        if config.schedule == "inverse_decay":
            return warm / (1.0 + config.schedule_decay * (step // self._steps))
        if config.schedule == "cosine":
            done = min(step / (config.max_epochs * self._steps), 1.0)
            return warm * max(_LEAST_SHARE, (1.0 + math.cos(math.pi * done)) / 2)
        return warm
