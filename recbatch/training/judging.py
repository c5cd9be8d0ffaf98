"""The figure that a trained network is chosen by: validation NDCG@10 of the score as it is shipped."""

from __future__ import annotations

from dataclasses import dataclass

from recbatch.config.learning import ModelSection, TrainingSection
from recbatch.model.fusion import Popularity
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import Recommender
from recbatch.training.dataset import open_sequences
from recbatch.training.fusion import FusionResult, fit_fusion
from recbatch.training.run import Inputs
from recbatch.training.trainer import threads
from recbatch.training.validation import Validation, Window


@dataclass(frozen=True)
class Past:
    """What a network is fitted to, and what its score is completed with; it does not know what users did in the window.

    inputs: with popularity where the score is fused; attributes of items, and what normalises them, are those of the
    evaluation cut, at which the window ends. neighbours, popularity: as of the start of the window.
    """

    inputs: Inputs
    neighbours: Neighbours
    popularity: Popularity
    window: Window
    seed: int

    def validation(self, config: TrainingSection) -> Validation:
        """The users of the window, the same as `fit` stops by. Raises ModelError where there are none."""
        parts, new_only = open_sequences(self.inputs.files), config.targets == "new"
        return Validation(parts, self.window, new_only, len(self.inputs.features), self.seed)

    def fit_fusion(self, model: Recommender, model_config: ModelSection, config: TrainingSection) -> FusionResult:
        """The weights of the score that are best for those users. Raises as `validation` does."""
        with threads(config.threads):
            validation, features = self.validation(config), self.inputs.features
            return fit_fusion(model, features, self.neighbours, self.popularity, validation, model_config)


def shipped(result: FusionResult, model_config: ModelSection) -> float:
    """NDCG@10 of the score as configured: fused, or of the bare network."""
    return result.ndcg if model_config.fused else result.bare_ndcg
