"""What normalisation was fitted to, and its use on numpy arrays: free of Spark, for training and for scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recbatch.config.sections import Normalization

DRIFT, DRIFT_SCALE = "drift:", "drift_scale:"


@dataclass(frozen=True)
class Parameters:
    """What was fitted for one column: x becomes (f(x) - center) / scale.

    f is the identity, or `signed_log` for the method `log1p`, whose center and scale are those of the logarithms.
    fill: what a missing value counts as, in the unit of the column; None makes it 0 after normalisation.
    """

    method: Normalization
    center: float
    scale: float
    fill: float | None = None


def signed_log(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """sign(x) * log(1 + |x|): log1p for what is not negative, odd and increasing everywhere, 0 at 0."""
    return np.copysign(np.log1p(np.abs(values)), values)


def normalise(
    values: npt.NDArray[np.floating], parameters: Parameters, fills: npt.NDArray[np.floating] | None = None
) -> npt.NDArray[np.float32]:
    """The values, NaN where missing, normalised: float32 of the same shape, without NaN.

    A missing value counts as its own one of `fills` (of the same shape, NaN for none), else as `parameters.fill`; where
    there is neither, it becomes 0. `transforms.normalization.apply` is the same for a column of Spark.
    """
    raw = np.asarray(values, dtype=np.float64)
    if fills is not None:
        raw = np.where(np.isnan(raw), fills, raw)
    if parameters.fill is not None:
        raw = np.where(np.isnan(raw), parameters.fill, raw)
    lifted = signed_log(raw) if parameters.method == "log1p" else raw
    scaled = (lifted - parameters.center) / parameters.scale
    with np.errstate(over="ignore"):  # beyond float32 lies infinity, as in Spark
        return np.where(np.isnan(scaled), 0.0, scaled).astype(np.float32)


def denormalise(values: npt.NDArray[np.floating], parameters: Parameters) -> npt.NDArray[np.float64]:
    """What `normalise` made the values of, but for the digits that float32 lacks; float64 of the same shape."""
    lifted = np.asarray(values, dtype=np.float64) * parameters.scale + parameters.center
    if parameters.method != "log1p":
        return lifted
    return np.copysign(np.expm1(np.abs(lifted)), lifted)


def drift(current: Mapping[str, Parameters], previous: Mapping[str, Parameters]) -> dict[str, float]:
    """How far the parameters of each column have moved since the last run, by figure.

    `drift:<column>` is (center - previous center) / previous scale, and `drift_scale:<column>` scale / previous scale:
    0 and 1 where nothing has changed. A column that is new or has another method is left out.
    """
    figures = {}
    for name, now in sorted(current.items()):
        before = previous.get(name)
        if before is not None and before.method == now.method and now.method != "none":
            figures[f"{DRIFT}{name}"] = (now.center - before.center) / before.scale
            figures[f"{DRIFT_SCALE}{name}"] = now.scale / before.scale
    return figures
