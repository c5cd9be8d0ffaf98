"""The options that a search varies and how far. The configuration as it is always lies within."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from recbatch.config.learning import ModelSection, TrainingSection

if TYPE_CHECKING:
    from optuna import Trial

_Limit = TypeVar("_Limit", int, float)

_MODEL = (
    "encoder",
    "blocks",
    "dim",
    "short_kernel",
    "context_length",
    "dropout",
    "id_dropout",
    "fusion_behaviours",
    "fusion_decay",
)
_TRAINING = ("learning_rate", "batch_rows", "loss", "label_smoothing", "averaging")
_WIDTH_MULTIPLE = 4  # what conv_pool needs, and vector instructions like
_LAYERS, _KERNELS, _FUSED = (1, 3), (2, 8), (5, 100)
_DROPOUT, _ID_DROPOUT, _SMOOTHING, _DECAY = (0.0, 0.7), (0.0, 0.3), (0.0, 0.2), (0.5, 1.0)
_RATE = (2e-4, 1e-2)
_AVERAGING = (0.0, 0.99, 0.999)


@dataclass(frozen=True)
class Setting:
    """The sections of a configuration that decide on a network."""

    model: ModelSection
    training: TrainingSection

    def options(self) -> dict[str, Any]:
        """Every option that is searched, as `section.name`."""
        model = {f"model.{name}": getattr(self.model, name) for name in _MODEL}
        return model | {f"training.{name}": getattr(self.training, name) for name in _TRAINING}

    def changes(self, base: Setting) -> dict[str, Any]:
        """The searched options that differ from those of `base`, as `section.name`."""
        before = base.options()
        return {name: value for name, value in self.options().items() if value != before[name]}


class Space:
    """What a trial may ask for: settings around `base`, for sequences of at most `longest` behaviours.

    Sizes are multiples of the configured ones, so that the search is about the same log and machine.
    """

    def __init__(self, base: Setting, longest: int) -> None:
        self._base = base
        self._longest = longest

    def default(self) -> dict[str, Any]:
        """The parameters of a trial that make it `base`."""
        return self._base.options()

    def suggest(self, trial: Trial) -> Setting:
        """The setting that the sampler wants to be tried."""
        model, training = self._base.model, self._base.training
        return Setting(
            ModelSection.model_validate(model.model_dump() | self._model(trial, model)),
            TrainingSection.model_validate(training.model_dump() | self._training(trial, training)),
        )

    def _model(self, trial: Trial, base: ModelSection) -> dict[str, Any]:
        # conv_pool takes multiples of four only, and a sampler needs the same choices in every trial.
        encoders = ["conv", "gru"] + ([] if base.dim % _WIDTH_MULTIPLE else ["conv_pool"])
        widths = {round(base.dim * by / _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE for by in (0.5, 1.0, 1.5, 2.0)}
        lengths = {min(max(1, round(base.context_length * by)), self._longest) for by in (0.5, 1.0, 2.0)}
        found: dict[str, Any] = {
            "encoder": trial.suggest_categorical("model.encoder", encoders),
            "blocks": trial.suggest_int("model.blocks", *_reaching(_LAYERS, base.blocks)),
            "dim": _choice(trial, "model.dim", widths - {0}, base.dim),
            "context_length": _choice(trial, "model.context_length", lengths, base.context_length),
            "dropout": _number(trial, "model.dropout", _DROPOUT, base.dropout),
            "id_dropout": _number(trial, "model.id_dropout", _ID_DROPOUT, base.id_dropout),
        }
        if found["encoder"] == "conv":
            found["short_kernel"] = trial.suggest_int("model.short_kernel", *_reaching(_KERNELS, base.short_kernel))
        if base.fused:
            behaviours = _reaching(_FUSED, base.fusion_behaviours)
            found["fusion_behaviours"] = trial.suggest_int("model.fusion_behaviours", *behaviours, log=True)
            found["fusion_decay"] = _number(trial, "model.fusion_decay", _DECAY, base.fusion_decay)
        return found

    def _training(self, trial: Trial, base: TrainingSection) -> dict[str, Any]:
        # `auto` is the full softmax where an epoch of it takes no longer than configured, and so never runs away.
        losses = list(dict.fromkeys([base.loss, "auto", "sampled"]))
        if base.loss == "full":
            losses.remove("auto")
        batches = {max(1, round(base.batch_rows * by)) for by in (0.5, 1.0, 2.0, 4.0)}
        found: dict[str, Any] = {
            "learning_rate": _number(trial, "training.learning_rate", _RATE, base.learning_rate, log=True),
            "batch_rows": _choice(trial, "training.batch_rows", batches, base.batch_rows),
            "loss": trial.suggest_categorical("training.loss", losses),
            "averaging": _choice(trial, "training.averaging", set(_AVERAGING), base.averaging),
        }
        if found["loss"] in ("auto", "full"):
            smoothing = _number(trial, "training.label_smoothing", _SMOOTHING, base.label_smoothing)
            found["label_smoothing"] = smoothing
        return found


def _choice(trial: Trial, name: str, choices: set[Any], configured: Any) -> Any:
    return trial.suggest_categorical(name, sorted(choices | {configured}))


def _number(trial: Trial, name: str, limits: tuple[float, float], configured: float, *, log: bool = False) -> float:
    """Of three digits, which is more than a validation window can tell apart; the configured one as it is."""
    value = trial.suggest_float(name, *_reaching(limits, configured), log=log)
    return value if value == configured else float(f"{value:.3g}")


def _reaching(limits: tuple[_Limit, _Limit], configured: _Limit) -> tuple[_Limit, _Limit]:
    """The limits, wide enough for what is configured."""
    return min(limits[0], configured), max(limits[1], configured)
