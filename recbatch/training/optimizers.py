"""Optimisers by name."""

from __future__ import annotations

import torch
from torch import nn

from recbatch.config.sections import TrainingSection


def make_optimizer(model: nn.Module, config: TrainingSection) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019); biases, norms and other vectors are not decayed."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
