"""One training: data, network, optimiser, averaged weights and random state, an epoch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from recbatch.config.learning import LossName, ModelSection, TrainingSection
from recbatch.model.fusion import Popularity
from recbatch.model.items import ItemFeatures
from recbatch.model.recommender import Recommender, Shape
from recbatch.training.batches import Examples, Weighting
from recbatch.training.dataset import count_items, open_sequences
from recbatch.training.objectives import choose_loss, make_objective
from recbatch.training.optimizers import Schedule, add_l1, make_optimizer, moving_average


class Progress(Protocol):
    """Called after every step, with metric None, and after every validation, with its NDCG@10."""

    def __call__(self, epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None: ...


@dataclass(frozen=True)
class Inputs:
    """What is learnt from: Arrow files of `user_sequences`, the features of all items, and the event types.

    popularity: as of the start of the validation window; None judges epochs by the bare network.
    """

    files: Sequence[Path]
    features: ItemFeatures
    n_event_types: int
    popularity: Popularity | None = None
    weighting: Weighting | None = None


class DivergedError(Exception):
    """The loss, the weights or what they score is not finite; the message says which, and when."""


class Run:
    """A training of what lies before `before` (epoch seconds; None: of everything).

    The random state of torch is the caller's to fork.
    """

    def __init__(
        self,
        inputs: Inputs,
        model_config: ModelSection,
        config: TrainingSection,
        seed: int,
        before: int | None,
        loss: LossName | None,
    ) -> None:
        torch.manual_seed(seed)
        self.config, features = config, inputs.features
        self.parts = open_sequences(inputs.files)
        self.examples = Examples(self.parts, before, model_config.context_length, config, inputs.weighting)
        self.steps = self.examples.n_batches()
        counts = count_items(self.parts, before, len(features))
        widths = features.numbers.shape[1], features.vectors.shape[1]
        shape = Shape(len(features), features.field_sizes, widths[0], inputs.n_event_types, widths[1])
        self._model = Recommender(model_config, shape)
        self._model.items.trained.copy_(torch.from_numpy(counts > 0))
        self._averaged: AveragedModel | None = None
        if config.averaging:
            self._averaged = moving_average(self._model, config.averaging)
        self.loss: LossName = loss or choose_loss(config, self.examples.n_positions, len(features), model_config.dim)
        self._optimizer = make_optimizer(self._model, config)
        self._schedule = Schedule(self._optimizer, config, self.steps)
        self._generator = np.random.default_rng(seed)
        self.learning_rate = config.learning_rate  # of the last step
        self._objective = make_objective(self.loss, config, features, counts, self._generator)

    @property
    def model(self) -> Recommender:
        """The network to judge and to ship: the averaged weights where they are asked for."""
        if self._averaged is None:
            return self._model
        averaged: Recommender = self._averaged.module  # type: ignore[assignment]
        return averaged

    def epoch(self, epoch: int, progress: Progress) -> float:
        """One pass over all examples; the mean loss a step.

        Raises DivergedError where it, or a weight after the last step, is not finite.
        """
        self._model.train()
        total = 0.0
        for step, batch in enumerate(self.examples.batches(self._generator), start=1):
            loss = self._objective(self._model, batch)
            value = loss.item()
            if not np.isfinite(value):
                raise DivergedError(f"the training loss is {value} in step {step} of epoch {epoch}")
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.config.l1:
                add_l1(self._model, self.config.l1)
            self._optimizer.step()
            self.learning_rate = float(self._optimizer.param_groups[0]["lr"])
            self._schedule.after_step()
            if self._averaged is not None:
                self._averaged.update_parameters(self._model)
            total += value
            progress(epoch, step, self.steps, value, None)
        if not all(bool(weight.isfinite().all()) for weight in self._model.parameters()):
            raise DivergedError(f"a weight is not finite after epoch {epoch}")
        return total / self.steps

    def judged(self, metric: float | None) -> None:
        """Tell the schedule what the epoch was worth."""
        self._schedule.after_epoch(metric)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the epochs to come depend on, as tensors and as JSON."""
        tensors = {f"model.{name}": one for name, one in self._model.state_dict().items()}
        if self._averaged is not None:
            tensors |= {f"averaged.{name}": one for name, one in self._averaged.state_dict().items()}
        for number, kept in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": one for name, one in kept.items() if isinstance(one, Tensor)}
        tensors["random"] = torch.random.get_rng_state()
        rates = [group["lr"] for group in self._optimizer.param_groups]
        return tensors, {
            "loss": self.loss,
            "numpy": self._generator.bit_generator.state,
            "schedule": self._schedule.state(),
            "rates": rates,
        }

    def restore(self, tensors: dict[str, Tensor], others: dict[str, Any]) -> None:
        """Go on from what `state` has given."""
        self._model.load_state_dict(_below("model.", tensors))
        if self._averaged is not None:
            self._averaged.load_state_dict(_below("averaged.", tensors))
        kept: dict[int, dict[str, Tensor]] = {}
        for key, one in _below("optimizer.", tensors).items():
            number, name = key.split(".")
            kept.setdefault(int(number), {})[name] = one
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": kept})
        self._schedule.restore(others["schedule"])
        for group, rate in zip(self._optimizer.param_groups, others["rates"], strict=True):
            group["lr"] = rate
        torch.random.set_rng_state(tensors["random"])
        self._generator.bit_generator.state = others["numpy"]


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
