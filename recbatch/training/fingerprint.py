"""Names a training by all that it depends on: another one must not go on from its checkpoint."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from torch import Tensor

from recbatch import __version__
from recbatch.config.learning import ModelSection, TrainingSection
from recbatch.training.run import Inputs


def fingerprint(
    inputs: Inputs, model_config: ModelSection, config: TrainingSection, seed: int, *others: int | str | None
) -> str:
    """A digest of the content of the inputs, the options, and what else the caller's training depends on."""
    digest = hashlib.blake2b()
    weighting = inputs.weighting
    of_type = None if weighting is None or weighting.of_type is None else weighting.of_type.tolist()
    half_life = None if weighting is None else weighting.half_life
    options = [model_config.model_dump(), config.model_dump(), seed, inputs.n_event_types, of_type, half_life, *others]
    digest.update(json.dumps([__version__, options], sort_keys=True).encode())
    for file in inputs.files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "blake2b").digest())
    features, popularity = inputs.features, inputs.popularity
    _add(digest, features.numbers, features.vectors, *(one for field in features.categories for one in field))
    if popularity is not None:
        _add(digest, popularity.ever, popularity.recent)
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, *tensors: Tensor) -> None:
    """Shapes and values; where one ends and the next begins is told apart."""
    for tensor in tensors:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).data)
