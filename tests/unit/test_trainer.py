"""Specification of training: it learns what is there, stops, repeats itself byte for byte, and says when it fails."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recbatch.config.learning import ModelSection, TrainingSection
from recbatch.errors import ModelError
from recbatch.model.fusion import BARE, Popularity
from recbatch.model.items import ItemFeatures
from recbatch.model.neighbours import Neighbours
from recbatch.ranking.csr import Csr
from recbatch.training import curves
from recbatch.training.batches import Weighting
from recbatch.training.checkpoint import Checkpoint
from recbatch.training.dataset import open_sequences
from recbatch.training.fingerprint import fingerprint
from recbatch.training.fusion import fit_bias, fit_fusion
from recbatch.training.run import Inputs
from recbatch.training.trainer import EpochResult, FitResult, fit, refit, threads
from recbatch.training.validation import Validation
from tests.unit.followers import FOLLOWING, N_ITEMS, WINDOW, make_inputs, silent

MODEL = ModelSection(dim=16, blocks=1, context_length=20, dropout=0.1, fusion_behaviours=20, fusion_decay=0.9)


def training(**options: object) -> TrainingSection:
    defaults = {"loss": "full", "max_epochs": 8, "batch_rows": 16, "learning_rate": 1e-2, "negatives": 64, "threads": 1}
    defaults |= {"examples": "windows", "patience": 2}
    return TrainingSection.model_validate({**defaults, **options})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("sequences"), buckets=1)


@pytest.fixture(scope="module")
def fitted(inputs: Inputs) -> FitResult:
    return fit(inputs, MODEL, training(), 7, WINDOW, silent)


def weights_of(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in model.state_dict().items()}


def test_it_learns_the_order_of_behaviours(inputs: Inputs, fitted: FitResult) -> None:
    validation = Validation(open_sequences(inputs.files), WINDOW, False, N_ITEMS, seed=7)
    # The bias alone ranks the same for everyone; the first target of 80 % of the users follows from their last item.
    users, items = validation.encode(fitted.model, inputs.features)
    best = max(result.ndcg for result in fitted.curve)
    assert validation.ndcg(users, items) == pytest.approx(best, abs=1e-12)
    assert best > 2 * validation.ndcg(torch.zeros_like(users), items)
    assert fitted.curve[-1].loss < 0.8 * fitted.curve[0].loss
    assert fitted.curve[0].loss < 1.2 * np.log(N_ITEMS)


def test_sampled_softmax_learns_it_too(inputs: Inputs, fitted: FitResult) -> None:
    sampled = fit(inputs, MODEL, training(loss="sampled"), 7, WINDOW, silent)
    assert sampled.loss == "sampled"
    assert max(r.ndcg for r in sampled.curve) > 0.75 * max(r.ndcg for r in fitted.curve)


def test_the_best_epoch_is_kept_and_patience_ends_the_run(inputs: Inputs) -> None:
    result = fit(inputs, MODEL, training(learning_rate=0.1, max_epochs=30, patience=2), 7, WINDOW, silent)
    scores = [epoch.ndcg for epoch in result.curve]
    assert result.epochs == int(np.argmax(scores)) + 1
    assert len(scores) == min(result.epochs + 2, 30) < 30
    validation = Validation(open_sequences(inputs.files), WINDOW, False, N_ITEMS, seed=7)
    assert validation.ndcg(*validation.encode(result.model, inputs.features)) == pytest.approx(max(scores), abs=1e-12)


@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_the_same_seed_gives_the_same_weights(loss: str, inputs: Inputs) -> None:
    config = training(loss=loss, max_epochs=1, threads=2)
    before = torch.random.get_rng_state()
    first, second = (fit(inputs, MODEL, config, 3, WINDOW, silent) for _ in range(2))
    assert weights_of(first.model) == weights_of(second.model)
    assert weights_of(fit(inputs, MODEL, config, 4, WINDOW, silent).model) != weights_of(first.model)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_refit_learns_from_what_the_window_held_back(inputs: Inputs) -> None:
    seen: list[int] = []

    def count_steps(epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None:
        assert metric is None
        assert loss > 0
        seen.append(epoch)
        assert step == len(seen) - steps * (epoch - 1)

    model = refit(inputs, MODEL, training(), 7, 2, "full", count_steps)
    assert set(seen) == {1, 2}
    assert not model.training
    again = refit(inputs, MODEL, training(), 7, 2, "full", silent)
    assert weights_of(model) == weights_of(again)


def test_items_without_a_behaviour_before_the_window_are_untrained(inputs: Inputs, tmp_path: Path) -> None:
    features = ItemFeatures(
        ((torch.arange(N_ITEMS + 2), torch.ones(N_ITEMS + 1, dtype=torch.int64)),), torch.zeros(N_ITEMS + 1, 0)
    )
    result = fit(Inputs(inputs.files, features, 1), MODEL, training(max_epochs=1), 7, WINDOW, silent)
    assert result.model.items.trained.tolist() == [True] * N_ITEMS + [False]


def test_new_targets(inputs: Inputs) -> None:
    result = fit(inputs, MODEL, training(targets="new", max_epochs=2), 7, WINDOW, silent)
    validation = Validation(open_sequences(inputs.files), WINDOW, True, N_ITEMS, seed=7)
    assert validation.ndcg(*validation.encode(result.model, inputs.features)) == pytest.approx(
        max(epoch.ndcg for epoch in result.curve), abs=1e-12
    )


def test_auto_takes_the_full_softmax_where_it_fits_the_time(inputs: Inputs) -> None:
    config = {"loss": "auto", "max_epochs": 1}
    assert fit(inputs, MODEL, training(**config), 7, WINDOW, silent).loss == "full"
    assert fit(inputs, MODEL, training(**config, full_epoch_seconds=1e-9), 7, WINDOW, silent).loss == "sampled"


def test_a_diverging_run_names_the_learning_rate(inputs: Inputs) -> None:
    with pytest.raises(ModelError, match=r"(?s)training loss is nan .*training\.learning_rate \(now 1e\+30\)"):
        fit(inputs, MODEL, training(learning_rate=1e30), 7, WINDOW, silent)


def test_weights_that_are_lost_in_the_last_step_of_an_epoch_are_not_kept(inputs: Inputs) -> None:
    """One batch an epoch: its loss is that of the weights before the step that makes them useless."""
    config = training(optimizer="sgd", averaging=0.0, learning_rate=5.0, batch_rows=512, max_epochs=99, patience=99)
    result = fit(inputs, MODEL, config, 7, WINDOW, silent)
    assert result.diverged is not None
    assert len(result.curve) > 1
    assert all(bool(weight.isfinite().all()) for weight in result.model.parameters())
    validation = Validation(open_sequences(inputs.files), WINDOW, False, N_ITEMS, seed=7)
    ndcg = validation.ndcg(*validation.encode(result.model, inputs.features))
    assert ndcg == pytest.approx(max(one.ndcg for one in result.curve), abs=1e-12)
    with pytest.raises(ModelError, match=r"training\.learning_rate \(now 5\.0\)"):
        refit(inputs, MODEL, config, 7, len(result.curve) + 2, "full", silent)


def test_a_weight_that_is_not_finite_ends_the_training(inputs: Inputs) -> None:
    config = training(optimizer="sgd", learning_rate=3e38, weight_decay=9.0, batch_rows=512)
    with pytest.raises(ModelError, match=r"(?s)a weight is not finite after epoch 1.*now 3e\+38"):
        refit(inputs, MODEL, config, 7, 1, "full", silent)


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_an_epoch_is_judged_by_its_own_weights(averaging: float, inputs: Inputs) -> None:
    model = MODEL.model_copy(update={"blocks": 2})
    result = fit(inputs, model, training(averaging=averaging, max_epochs=3), 7, WINDOW, silent)
    validation = Validation(open_sequences(inputs.files), WINDOW, False, N_ITEMS, seed=7)
    ndcg = validation.ndcg(*validation.encode(result.model, inputs.features))
    assert ndcg == pytest.approx(max(one.ndcg for one in result.curve), abs=1e-12)


class KilledError(Exception):
    """What a kill looks like from inside."""


def test_a_run_that_diverges_later_keeps_the_best_epoch(inputs: Inputs, tmp_path: Path) -> None:
    config, kept = training(), tmp_path / "fit"

    def kill(epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None:
        if epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        fit(inputs, MODEL, config, 7, WINDOW, kill, kept)
    name = fingerprint(inputs, MODEL, config, 7, WINDOW.start)
    state = Checkpoint.read(kept, name)
    assert state is not None
    state.tensors["model.items.id.weight"].fill_(torch.nan)
    state.write(kept, name)
    result = fit(inputs, MODEL, config, 7, WINDOW, silent, kept)
    assert result.diverged == "the training loss is nan in step 1 of epoch 2"
    assert result.epochs == len(result.curve) == 1
    validation = Validation(open_sequences(inputs.files), WINDOW, False, N_ITEMS, seed=7)
    ndcg = validation.ndcg(*validation.encode(result.model, inputs.features))
    assert ndcg == pytest.approx(result.curve[0].ndcg, abs=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"examples": "prefixes", "batch_rows": 64},
        {"loss": "sampled", "averaging": 0.9, "schedule": "inverse_decay"},
        {"optimizer": "sgd", "learning_rate": 0.1, "schedule": "plateau"},
        {"optimizer": "rmsprop", "learning_rate": 1e-3, "schedule": "cosine", "warmup_steps": 5, "l1": 1e-4},
        {"averaging": 0.0, "blocks": 2},
    ],
)
def test_killed_and_resumed_gives_the_same_bytes(options: dict[str, object], inputs: Inputs, tmp_path: Path) -> None:
    model = MODEL.model_copy(update={"blocks": options.pop("blocks", 1)})
    config = training(max_epochs=4, patience=4, **options)
    undisturbed = fit(inputs, model, config, 7, WINDOW, silent)

    def kill(epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None:
        if epoch == 3 and step == 2:
            raise KilledError

    kept = tmp_path / "fit"
    with pytest.raises(KilledError):
        fit(inputs, model, config, 7, WINDOW, kill, kept)
    epochs: list[int] = []

    def note(epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None:
        epochs.append(epoch)

    ended: list[EpochResult] = []
    resumed = fit(inputs, model, config, 7, WINDOW, note, kept, ended.append)
    assert set(epochs) == {3, 4}
    assert tuple(ended) == resumed.curve
    assert [(one.loss, one.ndcg) for one in resumed.curve] == [(one.loss, one.ndcg) for one in undisturbed.curve]
    assert weights_of(resumed.model) == weights_of(undisturbed.model)
    # Another seed is another training, and a damaged file none.
    assert fit(inputs, model, config, 8, WINDOW, silent, kept).curve != undisturbed.curve
    kept.write_bytes(kept.read_bytes()[:1000])
    assert weights_of(fit(inputs, model, config, 7, WINDOW, silent, kept).model) == weights_of(undisturbed.model)


def test_a_killed_refit_goes_on(inputs: Inputs, tmp_path: Path) -> None:
    whole = refit(inputs, MODEL, training(), 7, 3, "full", silent)

    def kill(epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None:
        if epoch == 2 and step == steps:
            raise KilledError

    with pytest.raises(KilledError):
        refit(inputs, MODEL, training(), 7, 3, "full", kill, checkpoint=tmp_path / "refit")
    again = refit(inputs, MODEL, training(), 7, 3, "full", silent, checkpoint=tmp_path / "refit")
    assert weights_of(again) == weights_of(whole)


def test_a_refit_for_other_epochs_begins_anew(inputs: Inputs, tmp_path: Path) -> None:
    refit(inputs, MODEL, training(), 7, 3, "full", silent, checkpoint=tmp_path / "refit")
    again = refit(inputs, MODEL, training(), 7, 1, "full", silent, checkpoint=tmp_path / "refit")
    assert weights_of(again) == weights_of(refit(inputs, MODEL, training(), 7, 1, "full", silent))


def test_the_loss_of_a_resumed_training_is_not_chosen_again(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = training(loss="auto", max_epochs=3, patience=3)

    def kill(epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None:
        if epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        fit(inputs, MODEL, config, 7, WINDOW, kill, tmp_path / "fit")
    slow = itertools.count(step=1000)
    monkeypatch.setattr("recbatch.training.objectives.time.perf_counter", lambda: float(next(slow)))
    assert fit(inputs, MODEL, config, 7, WINDOW, silent).loss == "sampled"
    assert fit(inputs, MODEL, config, 7, WINDOW, silent, tmp_path / "fit").loss == "full"


def test_what_is_learnt_from_names_the_training(inputs: Inputs, tmp_path: Path) -> None:
    names = {fingerprint(inputs, MODEL, training(), 7, 700)}
    other = make_inputs(tmp_path, buckets=1)
    assert fingerprint(other, MODEL, training(), 7, 700) in names
    content = bytearray(other.files[0].read_bytes())
    content[len(content) // 2] ^= 1
    other.files[0].write_bytes(content)
    names.add(fingerprint(other, MODEL, training(), 7, 700))
    features = replace(inputs.features, numbers=inputs.features.numbers + 1)
    flat = Popularity(torch.ones(N_ITEMS), torch.ones(N_ITEMS))
    changes = ({"features": features}, {"popularity": flat}, {"n_event_types": 2})
    names |= {fingerprint(replace(inputs, **change), MODEL, training(), 7, 700) for change in changes}
    weighted = replace(inputs, weighting=Weighting(half_life=60.0))
    assert len(names | {fingerprint(weighted, MODEL, training(), 7, 700)}) == 6


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_other_losses_learn_it_too(loss: str, inputs: Inputs) -> None:
    result = fit(inputs, MODEL, training(loss=loss), 7, WINDOW, silent)
    assert result.loss == loss
    validation = Validation(open_sequences(inputs.files), WINDOW, False, N_ITEMS, seed=7)
    users, items = validation.encode(result.model, inputs.features)
    assert validation.ndcg(users, items) > 2 * validation.ndcg(torch.zeros_like(users), items)


@pytest.mark.parametrize(("encoder", "context_length"), [("gru", 20), ("conv_pool", 1)])
def test_other_encoders_learn_it_too(encoder: str, context_length: int, inputs: Inputs) -> None:
    # The maximum over many positions does not tell which came last, and what follows the last is all there is here.
    model = MODEL.model_copy(update={"encoder": encoder, "context_length": context_length})
    result = fit(inputs, model, training(batch_rows=16), 7, WINDOW, silent)
    validation = Validation(open_sequences(inputs.files), WINDOW, False, N_ITEMS, seed=7)
    users, items = validation.encode(result.model, inputs.features)
    assert validation.ndcg(users, items) > 2 * validation.ndcg(torch.zeros_like(users), items)
    assert result.curve[-1].loss < result.curve[0].loss


def test_the_course_is_written_as_figures_and_as_a_picture(fitted: FitResult, tmp_path: Path) -> None:
    curves.write(fitted.curve, tmp_path / "curve")
    rows = (tmp_path / "curve" / "epochs.csv").read_text().splitlines()
    assert len(rows) == len(fitted.curve) + 1
    assert rows[0] == "epoch,loss,ndcg,training_seconds,seconds,learning_rate"
    assert rows[1].startswith(f"1,{fitted.curve[0].loss},{fitted.curve[0].ndcg},")


def test_tensorboard_shows_every_epoch_as_soon_as_it_ends(inputs: Inputs, tmp_path: Path) -> None:
    shown = EventAccumulator(str(tmp_path))
    config = training(max_epochs=3, patience=3, schedule="inverse_decay", schedule_decay=1.0, warmup_steps=0)
    with curves.events(tmp_path) as add:

        def ended(epoch: EpochResult) -> None:
            add(epoch)
            assert [one.step for one in shown.Reload().Scalars("loss/training")] == list(range(1, epoch.epoch + 1))

        result = fit(inputs, MODEL, config, 7, WINDOW, silent, ended=ended)
    found = {name: [one.value for one in shown.Scalars(name)] for name in shown.Reload().Tags()["scalars"]}
    assert found.pop("learning_rate") == pytest.approx([1e-2, 1e-2 / 2, 1e-2 / 3])
    assert found.pop("ndcg@10/validation") == pytest.approx([one.ndcg for one in result.curve])
    assert found.pop("loss/training") == pytest.approx([one.loss for one in result.curve])
    assert found.pop("seconds/training") == pytest.approx([one.training_seconds for one in result.curve])
    assert found.pop("seconds/epoch") == pytest.approx([one.seconds for one in result.curve])
    assert not found


def test_without_tensorboard_nothing_is_written(
    fitted: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as Python marks a package that cannot be imported
    with curves.events(tmp_path) as add:
        add(fitted.curve[0])
    assert not list(tmp_path.iterdir())


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_fusion_finds_cooccurrence_that_helps_and_leaves_out_what_does_not(inputs: Inputs) -> None:
    untrained = refit(inputs, MODEL, training(), 7, 0, "full", silent)
    validation = Validation(open_sequences(inputs.files), WINDOW, False, N_ITEMS, seed=7)
    truth = Neighbours(
        Csr(torch.arange(N_ITEMS + 1), torch.from_numpy(FOLLOWING.astype(np.int32)), torch.full((N_ITEMS,), 2.0))
    )
    flat = Popularity(torch.ones(N_ITEMS), torch.ones(N_ITEMS))
    helped = fit_fusion(untrained, inputs.features, truth, flat, validation, MODEL)
    assert helped.fusion.lam > 0
    assert helped.ndcg > helped.bare_ndcg + 0.1
    additions = truth.additions(validation.past, helped.fusion)
    assert validation.ndcg(*validation.encode(untrained, inputs.features), additions) == pytest.approx(helped.ndcg)
    nothing = Neighbours(
        Csr(torch.zeros(N_ITEMS + 1, dtype=torch.int64), torch.empty(0, dtype=torch.int32), torch.empty(0))
    )
    bare = fit_fusion(untrained, inputs.features, nothing, flat, validation, MODEL)
    assert bare.fusion.lam == 0
    assert bare.ndcg == bare.bare_ndcg == helped.bare_ndcg


def test_the_trend_gets_weight_where_popularity_says_what_is_taken(inputs: Inputs) -> None:
    untrained = refit(inputs, MODEL, training(), 7, 0, "full", silent)
    validation = Validation(open_sequences(inputs.files), WINDOW, False, N_ITEMS, seed=7)
    users, items = validation.encode(untrained, inputs.features)
    taken = torch.bincount(validation.targets.indices.long(), minlength=N_ITEMS).float()
    fusion, ndcg = fit_bias(validation, users, items, Popularity(taken, taken), BARE)
    assert fusion.trend > 0
    assert ndcg > validation.ndcg(users, items)
    told = replace(inputs, popularity=Popularity(taken, taken))
    judged = fit(told, MODEL, training(max_epochs=1), 7, WINDOW, silent)
    assert judged.curve[0].ndcg >= fit(inputs, MODEL, training(max_epochs=1), 7, WINDOW, silent).curve[0].ndcg
