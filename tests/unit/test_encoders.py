"""Specification of the sequence encoder and of user vectors in fixed shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from recbatch.config.learning import ModelSection
from recbatch.model.encoders import ConvEncoder, causal_convolution, toeplitz_matrices
from recbatch.model.histories import Sequences
from recbatch.model.items import ItemFeatures
from recbatch.model.other_encoders import ConvPoolEncoder, GruEncoder
from recbatch.model.recommender import Recommender, Shape, user_vectors

N_ITEMS = 300


def make_sequences(lengths: list[int], seed: int = 0) -> Sequences:
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    columns: dict[str, NDArray[Any]] = {
        "item_idx": rng.integers(0, N_ITEMS, n).astype(np.int32),
        "event_type": rng.integers(0, 3, n).astype(np.int32),
        "event_time": np.sort(rng.integers(0, 10**6, n)),
        "price": rng.normal(size=n).astype(np.float32),
        "quantity": rng.normal(size=n).astype(np.float32),
    }
    return Sequences(offsets, columns)


@pytest.fixture(scope="module")
def model() -> Recommender:
    torch.manual_seed(0)
    model = Recommender(ModelSection(dim=24, blocks=2, context_length=50), Shape(N_ITEMS, (5,), 0, 3))
    model.items.trained.fill_(True)
    return model.eval()


@pytest.fixture(scope="module")
def item_vectors(model: Recommender) -> torch.Tensor:
    codes = torch.arange(N_ITEMS) % 5
    return model.item_vectors(ItemFeatures(((torch.arange(N_ITEMS + 1), codes),), torch.zeros(N_ITEMS, 0)))[0]


@pytest.mark.parametrize(("length", "width"), [(1, 4), (7, 4), (12, 12), (9, 30)])
def test_causal_convolution_equals_conv1d(length: int, width: int) -> None:
    torch.manual_seed(length)
    x, kernel = torch.randn(3, length, 6, dtype=torch.float64), torch.randn(6, width, dtype=torch.float64)
    padded = F.pad(x.transpose(1, 2), (width - 1, 0))
    expected = F.conv1d(padded, kernel.flip(1)[:, None], groups=6).transpose(1, 2)
    found = causal_convolution(x.permute(2, 1, 0), toeplitz_matrices(kernel, length)).permute(2, 1, 0)
    torch.testing.assert_close(found, expected)


def encoder_of(name: str, blocks: int) -> ConvEncoder | GruEncoder | ConvPoolEncoder:
    torch.manual_seed(blocks)
    if name == "gru":
        return GruEncoder(16, blocks, 0.0)
    if name == "conv_pool":
        return ConvPoolEncoder(16, blocks, 0.0)
    encoder = ConvEncoder(16, blocks, 30, 4, 0.0)
    for block in encoder.blocks:
        torch.nn.init.normal_(block.out.weight)  # a new block hardly changes its input
    return encoder


@pytest.mark.parametrize("name", ["conv", "gru", "conv_pool"])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_the_last_states_alone_are_those_of_all_states(blocks: int, name: str) -> None:
    encoder = encoder_of(name, blocks).eval()
    x, last = torch.randn(5, 20, 16), torch.tensor([19, 0, 7, 2, 11])
    with torch.no_grad():
        torch.testing.assert_close(encoder.at(x, last), encoder(x)[torch.arange(5), last], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gru", "conv_pool"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_no_encoder_sees_the_future_or_padding(blocks: int, name: str) -> None:
    encoder = encoder_of(name, blocks).eval()
    x = torch.randn(3, 20, 16)
    changed = torch.cat([x[:, :12], torch.randn(3, 8, 16)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x)[:, :12], encoder(changed)[:, :12], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder(x[:, :12]), encoder(x)[:, :12], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(encoder(x)[:, 12:], encoder(changed)[:, 12:])


def test_conv_pool_is_the_textbook_network() -> None:
    """Against convolutions written as loops, for a history whose end is the last position."""
    encoder = encoder_of("conv_pool", 1).eval()
    assert isinstance(encoder, ConvPoolEncoder)
    x = torch.randn(1, 6, 16, requires_grad=True)
    image = F.pad(x[:, None], (1, 1, 2, 0))
    first = F.max_pool2d(F.relu(F.conv2d(image, encoder.first.weight, encoder.first.bias)), (1, 2))
    (second,) = encoder.others
    again = F.max_pool2d(F.relu(F.conv2d(F.pad(first, (1, 1, 2, 0)), second.weight, second.bias)), (1, 2))
    assert again.shape == (1, 32, 6, 4)
    expected = encoder.norm(encoder.out(again.amax(2).flatten(1)))
    found = encoder.at(x, torch.tensor([5]))
    torch.testing.assert_close(found, expected)
    weights = torch.linspace(-1, 2, 16)
    for ours, textbook in zip(
        torch.autograd.grad((found * weights).sum(), [x, *encoder.parameters()]),
        torch.autograd.grad((expected * weights).sum(), [x, *encoder.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(ours, textbook)


def test_a_state_does_not_see_the_future_and_sees_the_whole_past() -> None:
    torch.manual_seed(1)
    encoder = ConvEncoder(16, 2, 30, 4, 0.0).eval()
    x = torch.randn(1, 30, 16, requires_grad=True)
    (grad,) = torch.autograd.grad(encoder(x)[0, 20].pow(2).sum(), x)
    seen = grad[0].abs().sum(1) > 0
    assert seen.tolist() == [t <= 20 for t in range(30)]


def test_padding_does_not_change_a_user(model: Recommender, item_vectors: torch.Tensor) -> None:
    sequences = make_sequences([5, 9])
    start, stop = sequences.last(50)
    narrow, wide = (model.encode(sequences.pad(start, stop, width), item_vectors) for width in (9, 40))
    torch.testing.assert_close(narrow, wide, rtol=1e-4, atol=1e-5)


def test_user_vectors_are_the_encoding_of_the_last_behaviours(model: Recommender, item_vectors: torch.Tensor) -> None:
    sequences = make_sequences([3, 70, 0, 8, 9, 50])
    vectors = user_vectors(model, item_vectors, sequences)
    start, stop = sequences.last(50)
    with torch.no_grad():
        expected = model.encode(sequences.pad(start, stop, 50), item_vectors)
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)
    assert vectors[2].tolist() == [0.0] * 24
    assert float((vectors[0] - vectors[1]).abs().max()) > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_every_bit_of_a_user_vector_is_the_users_own(seed: int, model: Recommender, item_vectors: torch.Tensor) -> None:
    rng = np.random.default_rng(seed)
    sequences = make_sequences(rng.integers(0, 80, 150).tolist(), seed)
    whole = user_vectors(model, item_vectors, sequences)
    order = rng.permutation(150)[: int(rng.integers(1, 150))]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        other = user_vectors(
            model, item_vectors, sequences.select(sequences.offsets[order], sequences.offsets[order + 1])
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(other.view(torch.int32), whole[torch.from_numpy(order)].view(torch.int32))


@pytest.mark.parametrize("column", ["event_type", "event_time", "price", "quantity", "item_idx"])
def test_every_column_matters(column: str, model: Recommender, item_vectors: torch.Tensor) -> None:
    sequences = make_sequences([6])
    changed = dict(sequences.columns)
    changed[column] = changed[column].copy()
    changed[column][-1] = {"event_type": (changed[column][-1] + 1) % 3}.get(column, changed[column][-1] * 2 + 7)
    other = user_vectors(model, item_vectors, Sequences(sequences.offsets, changed))
    assert not torch.allclose(other, user_vectors(model, item_vectors, sequences), atol=1e-6)


def test_time_is_measured_between_behaviours_alone(model: Recommender, item_vectors: torch.Tensor) -> None:
    sequences = make_sequences([6, 20])
    later = {**sequences.columns, "event_time": sequences.columns["event_time"] + 10**8}
    moved = user_vectors(model, item_vectors, Sequences(sequences.offsets, later))
    assert torch.equal(moved, user_vectors(model, item_vectors, sequences))
