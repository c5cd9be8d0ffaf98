"""Specification of the losses: equal to autograd over the whole matrix, in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from recbatch.model.losses import binary_cross_entropy, full_softmax, sampled_softmax, squared_error


@pytest.mark.parametrize("n_items", [1, 40, 1003])
@pytest.mark.parametrize("rows", [1, 255, 256, 700])
def test_full_softmax_and_its_gradients_equal_autograd(rows: int, n_items: int) -> None:
    torch.manual_seed(rows)
    users = torch.randn(rows, 5, dtype=torch.float64, requires_grad=True)
    items = torch.randn(n_items, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(n_items, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(n_items, (rows,))
    expected = F.cross_entropy(users @ items.t() + bias, targets)
    expected_grads = torch.autograd.grad(expected * 3, (users, items, bias))
    loss = full_softmax(users, items, bias, targets)
    grads = torch.autograd.grad(loss * 3, (users, items, bias))
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("rows", [1, 300])
def test_weights_and_smoothing_equal_autograd(rows: int, smoothing: float) -> None:
    torch.manual_seed(rows)
    users = torch.randn(rows, 5, dtype=torch.float64, requires_grad=True)
    items = torch.randn(70, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(70, dtype=torch.float64, requires_grad=True)
    targets, weights = torch.randint(70, (rows,)), torch.rand(rows, dtype=torch.float64) + 0.1
    each = F.cross_entropy(users @ items.t() + bias, targets, reduction="none", label_smoothing=smoothing)
    expected = (each * weights).sum() / weights.sum()
    loss = full_softmax(users, items, bias, targets, weights, smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for grad, expected_grad in zip(
        torch.autograd.grad(loss, (users, items, bias)),
        torch.autograd.grad(expected, (users, items, bias)),
        strict=True,
    ):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-13)


def test_binary_cross_entropy_by_hand() -> None:
    users, items = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, 5.0], [0.0, 1.0]])
    bias, targets, negatives = torch.tensor([0.5, 0.0, -0.5]), torch.tensor([0, 2]), torch.tensor([1, 2, 0])
    scores = users @ items.t() + bias
    p = torch.sigmoid(scores).tolist()
    first = -math.log(p[0][0]) - (math.log(1 - p[0][1]) + math.log(1 - p[0][2])) / 2
    second = -math.log(p[1][2]) - (math.log(1 - p[1][1]) + math.log(1 - p[1][0])) / 2
    loss = binary_cross_entropy(users, items, bias, targets, negatives)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-5)
    weighted = binary_cross_entropy(users, items, bias, targets, negatives, torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx((3 * first + second) / 4, rel=1e-5)


def test_squared_error_by_hand() -> None:
    users, items = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [1.0, 5.0], [0.0, 1.0]])
    bias, negatives = torch.tensor([0.5, 0.0, -0.5]), torch.tensor([1, 2, 0])
    expected = (2.5 - 4.0) ** 2 + (1.0**2 + 0.5**2) / 2
    loss = squared_error(users, items, bias, torch.tensor([0]), negatives, torch.tensor([4.0]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    of_one = squared_error(users, items, bias, torch.tensor([0]), negatives)
    assert of_one.item() == pytest.approx((2.5 - 1.0) ** 2 + (1.0 + 0.25) / 2, rel=1e-5)


def test_full_softmax_does_not_overflow() -> None:
    users, items = torch.full((2, 1), 1e3), torch.tensor([[1.0], [-1.0]])
    loss = full_softmax(users, items, torch.zeros(2), torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(1000.0)


def test_sampled_softmax_by_hand() -> None:
    users, items = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [1.0, 5.0], [0.0, 1.0]])
    bias, log_q = torch.tensor([0.5, 0.0, -0.5]), torch.tensor([0.2, 0.5, 0.3]).log()
    # Target 0; negatives 1, 2 and 0, of which the last is the target itself and is left out.
    odds = [math.exp(2.5) / 0.2, math.exp(1.0) / 0.5, math.exp(-0.5) / 0.3]
    expected = -math.log(odds[0] / sum(odds))
    loss = sampled_softmax(users, items, bias, torch.tensor([0]), torch.tensor([1, 2, 0]), log_q)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    # The same user with target 1, which weighs a third.
    other = -math.log(odds[1] / sum(odds))
    twice, targets, weights = users.expand(2, 2), torch.tensor([0, 1]), torch.tensor([3.0, 1.0])
    weighted = sampled_softmax(twice, items, bias, targets, torch.tensor([1, 2, 0]), log_q, weights)
    assert weighted.item() == pytest.approx((3 * expected + other) / 4, rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1e-45])
def test_targets_that_weigh_nothing_teach_nothing(weight: float) -> None:
    users, items = torch.ones(3, 2, requires_grad=True), torch.ones(5, 2)
    bias, targets, weights = torch.zeros(5), torch.tensor([0, 1, 2]), torch.full((3,), weight)
    losses = [
        full_softmax(users, items, bias, targets, weights, 0.1),
        sampled_softmax(users, items, bias, targets, torch.tensor([3, 4]), torch.zeros(5), weights),
        binary_cross_entropy(users, items, bias, targets, torch.tensor([3, 4]), weights),
    ]
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, users)
        assert loss.item() == pytest.approx(0.0, abs=1e-6)
        assert gradient.abs().max() < 1e-6


def test_sampled_softmax_with_every_item_drawn_once_is_the_full_one() -> None:
    torch.manual_seed(0)
    users, items, bias = torch.randn(30, 4), torch.randn(200, 4), torch.randn(200)
    targets, uniform = torch.randint(200, (30,)), torch.full((200,), -math.log(200))
    loss = sampled_softmax(users, items, bias, targets, torch.randperm(200), uniform)
    torch.testing.assert_close(loss, full_softmax(users, items, bias, targets))


def test_log_q_undoes_the_popularity_of_negatives() -> None:
    torch.manual_seed(0)
    users, items, bias = torch.zeros(1, 2), torch.zeros(50, 2), torch.zeros(50)
    q = torch.arange(1.0, 51.0) / 1275
    negatives = torch.multinomial(q, 200_000, replacement=True)
    # All scores are 0, so the chance of target 9 is 1 / 50 whatever was drawn how often; the drawn sum estimates
    # 200,000 x (Σ over the others of q / q) and the positive stands for its one expected draw.
    loss = sampled_softmax(users, items, bias, torch.tensor([9]), negatives, (q * len(negatives)).log())
    positive = 1 / (q[9] * len(negatives))
    assert loss.item() == pytest.approx(-math.log(positive / (positive + 49)), rel=0.01)
