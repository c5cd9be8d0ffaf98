"""Specification of what a training minimises: the configured loss of a batch, with weights, smoothing and negatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbatch.config.learning import LossName, ModelSection, TrainingSection
from recbatch.model.histories import Histories
from recbatch.model.items import ItemFeatures
from recbatch.model.losses import binary_cross_entropy, sampled_softmax, squared_error
from recbatch.model.recommender import Recommender, Shape
from recbatch.training.batches import Batch
from recbatch.training.objectives import Objective, choose_loss, make_objective

N_ITEMS, N_DRAWN, SEED = 40, 25, 3
COUNTS = np.arange(N_ITEMS)
FEATURES = ItemFeatures(((torch.arange(N_ITEMS + 1), torch.arange(N_ITEMS) % 5 + 1),), torch.zeros(N_ITEMS, 0))
# The chance of an item to be drawn as a negative.
CHANCE = (COUNTS + 1.0) ** 0.75 / ((COUNTS + 1.0) ** 0.75).sum()


@pytest.fixture
def model() -> Recommender:
    torch.manual_seed(SEED)
    made = Recommender(ModelSection(dim=8, blocks=1, context_length=6), Shape(N_ITEMS, (6,), 0, 1)).eval()
    made.items.trained.fill_(True)
    torch.nn.init.normal_(made.items.id.weight)
    return made


@pytest.fixture
def batch() -> Batch:
    items = torch.tensor([[3, 9, 11, 0], [7, 7, 0, 0], [39, 0, 1, 2]])
    zeros = torch.zeros(3, 4)
    histories = Histories(items, zeros.long(), zeros.long(), zeros, zeros, torch.tensor([3, 2, 4]))
    return Batch(histories, torch.tensor([5, 38, 3]), torch.tensor([1.0, 2.0, 0.5]), None)


def objective_of(name: LossName, **options: object) -> Objective:
    config = TrainingSection.model_validate({"loss": name, "negatives": N_DRAWN, **options})
    return make_objective(name, config, FEATURES, COUNTS, np.random.default_rng(SEED))


def drawn() -> torch.Tensor:
    """What the first batch is given by a generator of the same seed: the inverse of the cumulated chances."""
    uniform = np.random.default_rng(SEED).random(N_DRAWN)
    return torch.tensor([int((CHANCE.cumsum() < u).sum()) for u in uniform])


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_full_is_cross_entropy_over_all_items(
    smoothing: float, weighted: bool, model: Recommender, batch: Batch
) -> None:
    if not weighted:
        batch = replace(batch, weights=None)
    vectors, bias = model.item_vectors(FEATURES)
    logits = model.encode(batch.histories, vectors) @ vectors.t() + bias
    each = F.cross_entropy(logits, batch.targets, reduction="none", label_smoothing=smoothing)
    weights = torch.ones(3) if batch.weights is None else batch.weights
    loss = objective_of("full", label_smoothing=smoothing)(model, batch)
    torch.testing.assert_close(loss, (each * weights).sum() / weights.sum())


def test_sampled_scores_the_items_at_hand_with_their_own_chances(model: Recommender, batch: Batch) -> None:
    vectors, bias = model.item_vectors(FEATURES)
    states = model.encode(batch.histories, vectors)
    log_q = torch.from_numpy(np.log(CHANCE)).float()
    expected = sampled_softmax(states, vectors, bias, batch.targets, drawn(), log_q, batch.weights)
    torch.testing.assert_close(objective_of("sampled")(model, batch), expected)


@pytest.mark.parametrize(("name", "formula"), [("bce", binary_cross_entropy), ("mse", squared_error)])
def test_bce_and_mse_have_the_same_negatives(
    name: LossName, formula: Objective, model: Recommender, batch: Batch
) -> None:
    vectors, bias = model.item_vectors(FEATURES)
    states = model.encode(batch.histories, vectors)
    expected = formula(states, vectors, bias, batch.targets, drawn(), batch.weights)  # type: ignore[call-arg, arg-type]
    torch.testing.assert_close(objective_of(name)(model, batch), expected)


def test_a_catalogue_too_large_for_memory_is_sampled() -> None:
    assert choose_loss(TrainingSection(), 10**6, 10**10, 64) == "sampled"
    assert choose_loss(TrainingSection(loss="full"), 10**6, 10**10, 64) == "full"
    assert choose_loss(TrainingSection(full_epoch_seconds=1e9), 10**3, 10**5, 4) == "full"
