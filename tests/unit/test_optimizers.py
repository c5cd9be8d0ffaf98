"""Specification of optimisers, penalties and schedules: each against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from recbatch.config.learning import TrainingSection
from recbatch.training.optimizers import Schedule, add_l1, make_optimizer, moving_average

RATE = 0.1


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[2.0, -3.0]]))
        self.vector = nn.Parameter(torch.tensor([5.0]))


def after_steps(gradients: list[float], **options: object) -> tuple[list[float], float]:
    """The matrix and the vector after steps in which every gradient is the same number."""
    net = _Net()
    optimizer = make_optimizer(net, TrainingSection.model_validate({"learning_rate": RATE, **options}))
    for gradient in gradients:
        for parameter in net.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
    return net.matrix[0].tolist(), net.vector.item()


def test_sgd_with_momentum_and_l2() -> None:
    matrix, vector = after_steps([1.0, 1.0], optimizer="sgd", momentum=0.5, weight_decay=0.1)
    w, velocity = 2.0, 0.0
    for _ in range(2):
        velocity = 0.5 * velocity + 1.0 + 0.1 * w
        w -= RATE * velocity
    assert matrix[0] == pytest.approx(w)
    assert vector == pytest.approx(5.0 - RATE * 1.0 - RATE * 1.5)  # vectors are not decayed


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_and_adamw(optimizer: str) -> None:
    gradients = [1.0, 3.0]
    matrix, vector = after_steps(gradients, optimizer=optimizer, weight_decay=0.1)

    def expected(w: float, decay: float) -> float:
        mean = square = 0.0
        for step, gradient in enumerate(gradients, start=1):
            g = gradient + decay * w if optimizer == "adam" else gradient
            if optimizer == "adamw":
                w -= RATE * decay * w
            mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
            w -= RATE * (mean / (1 - 0.9**step)) / (math.sqrt(square / (1 - 0.999**step)) + 1e-8)
        return w

    assert matrix == pytest.approx([expected(2.0, 0.1), expected(-3.0, 0.1)], rel=1e-5)
    assert vector == pytest.approx(expected(5.0, 0.0), rel=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop(momentum: float) -> None:
    matrix, vector = after_steps([2.0, -1.0, 0.5], optimizer="rmsprop", momentum=momentum, weight_decay=0.1)

    def expected(w: float, decay: float) -> float:
        square, velocity = 0.0, 0.0
        for gradient in (2.0, -1.0, 0.5):
            g = gradient + decay * w
            square = 0.99 * square + 0.01 * g * g
            velocity = momentum * velocity + g / (math.sqrt(square) + 1e-8)
            w -= RATE * velocity
        return w

    assert matrix == pytest.approx([expected(2.0, 0.1), expected(-3.0, 0.1)], rel=1e-5)
    assert vector == pytest.approx(expected(5.0, 0.0), rel=1e-5)


def test_l1_adds_the_sign_of_matrices() -> None:
    net = _Net()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    add_l1(net, 0.25)
    assert net.matrix.grad is not None
    assert net.vector.grad is not None
    assert net.matrix.grad[0].tolist() == [1.25, 0.75]
    assert net.vector.grad.item() == 1.0


def rates(epochs: int, steps: int, metrics: list[float] | None = None, **options: object) -> list[float]:
    """The step size of every step."""
    net = _Net()
    config = TrainingSection.model_validate({"learning_rate": RATE, "max_epochs": epochs, **options})
    optimizer = make_optimizer(net, config)
    schedule = Schedule(optimizer, config, steps)
    found = []
    for epoch in range(epochs):
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(None if metrics is None else metrics[epoch])
    return found


def test_constant_and_inverse_decay() -> None:
    assert rates(2, 3) == [RATE] * 6
    expected = [RATE / (1 + 0.5 * epoch) for epoch in range(3) for _ in range(2)]
    assert rates(3, 2, schedule="inverse_decay", schedule_decay=0.5) == pytest.approx(expected)


def test_cosine_with_warm_up() -> None:
    found = rates(2, 5, schedule="cosine", warmup_steps=4)
    expected = [
        RATE * min(1.0, (step + 1) / 4) * max(0.02, (1 + math.cos(math.pi * step / 10)) / 2) for step in range(10)
    ]
    assert found == pytest.approx(expected)


def test_plateau_halves_after_the_second_epoch_that_is_no_better() -> None:
    found = rates(6, 1, [0.1, 0.2, 0.2, 0.1, 0.3, 0.3], schedule="plateau")
    assert found == pytest.approx([RATE] * 4 + [RATE / 2] * 2)


def test_the_moving_average_forgets_the_first_weights_and_then_keeps_its_decay() -> None:
    model = torch.nn.Linear(3, 2)
    averaged = moving_average(model, 0.5)
    expected = None
    for n in range(40):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3, generator=torch.Generator().manual_seed(n)))
        averaged.update_parameters(model)
        current = model.weight.detach().clone()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = current if expected is None else decay * expected + (1 - decay) * current
        torch.testing.assert_close(averaged.module.weight.detach(), expected)
