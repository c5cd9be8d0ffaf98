"""What more data is worth: the same training on growing shares of the users, judged on the same ones."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recbatch.config.learning import LossName
from recbatch.errors import UsageError
from recbatch.training.dataset import open_sequences, stop_before
from recbatch.training.judging import Past
from recbatch.training.run import Progress
from recbatch.training.space import Setting
from recbatch.training.trainer import fit

FIGURES, PICTURE = "learning_curve.csv", "learning_curve.png"
_COLUMNS = ("share", "buckets", "behaviours", "ndcg", "error", "network_ndcg", "judged", "epochs", "seconds")


@dataclass(frozen=True, eq=False)
class Point:
    """A training on some of the sampled buckets.

    share: of the buckets that have rows, above 0 to 1. behaviours: before the window, of the users in them. of_users:
    (N,) validation NDCG@10 as shipped of those who are judged. network_ndcg: the mean of the bare network. seconds: of
    training, without validation.
    """

    share: float
    buckets: int
    behaviours: int
    of_users: NDArray[np.float64]
    network_ndcg: float
    epochs: int
    seconds: float

    @property
    def ndcg(self) -> float:
        """Mean over the users."""
        return float(self.of_users.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean, std / sqrt(N)."""
        return _error(self.of_users)

    @property
    def judged(self) -> int:
        """N."""
        return len(self.of_users)


def learning_curve(
    past: Past,
    setting: Setting,
    shares: Sequence[float],
    folder: Path,
    progress: Callable[[float], Progress],
    ended: Callable[[Point], None],
) -> list[Point]:
    """Train `setting` on growing shares of the buckets; the smaller ones lie within the larger ones.

    The largest share is trained first: a loss that is left to the machine is the one that it takes there.
    All are stopped and judged by the users of the smallest share. What those did before the window is learnt from at
    every share, as it is in production; so only what others did is added. Of the added users, files are written to
    `folder` that end before the window, which keeps them out of the validation. Co-occurrence and popularity are
    those of all users at every share: what the network alone gains is `network_ndcg`.

    progress: from a share to who is told of its steps. ended: is given every point.

    Raises:
        UsageError: the shares come to fewer than two numbers of buckets.
        ModelError: nothing to learn from or to validate on, or a training diverged.
    """
    files = [past.inputs.files[at] for at in np.random.default_rng(past.seed).permutation(len(past.inputs.files))]
    sizes = sorted({max(1, round(share * len(files))) for share in shares})
    if len(sizes) < 2:
        named = ", ".join(f"{share:g}" for share in shares)
        raise UsageError(
            f"the shares {named} of {len(files)} buckets are all {sizes[0]}",
            remedy="give other shares, or raise features.buckets or training.sample_share",
        )
    folder.mkdir(parents=True, exist_ok=True)
    ordered = files[: sizes[0]] + [_cut(file, past.window.start, folder) for file in files[sizes[0] : sizes[-1]]]
    points: list[Point] = []
    for size in reversed(sizes):
        some = replace(past, inputs=replace(past.inputs, files=ordered[:size]))
        share = size / len(files)
        point, loss = _point(some, setting, share, progress(share))
        setting = replace(setting, training=setting.training.model_copy(update={"loss": loss}))
        points.insert(0, point)
        ended(point)
    return points


def last_gain(points: Sequence[Point]) -> str:
    """What doubling the data brought last, as a sentence."""
    before, after = points[-2:]
    if not 0 < before.behaviours < after.behaviours:
        return f"The buckets after {before.share:.3g} hold no behaviour to learn from."
    doublings = math.log2(after.behaviours / before.behaviours)
    gain = (after.ndcg - before.ndcg) / doublings
    error = _error(after.of_users - before.of_users) / doublings
    of = f" ({gain / before.ndcg:+.1%})" if before.ndcg else ""
    return (
        f"From {before.share:.3g} to {after.share:.3g} of the buckets, {before.behaviours:,} to {after.behaviours:,} "
        f"behaviours, a doubling of the data changed NDCG@10 by {gain:+.4f}{of}, with a standard error of "
        f"{error:.4f}, measured on {after.judged:,} users."
    )


def write(points: Sequence[Point], folder: Path) -> None:
    """Write `learning_curve.csv`, a row a share, and where matplotlib is installed `learning_curve.png`."""
    with (folder / FIGURES).open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows({name: getattr(point, name) for name in _COLUMNS} for point in points)
    if find_spec("matplotlib"):
        _draw(points, folder / PICTURE)


def _error(values: NDArray[np.float64]) -> float:
    return float(values.std() / math.sqrt(len(values)))


def _point(past: Past, setting: Setting, share: float, progress: Progress) -> tuple[Point, LossName]:
    """With the loss that was taken."""
    inputs, window = past.inputs, past.window
    fitted = fit(inputs, setting.model, setting.training, past.seed, window, progress)
    result = past.fit_fusion(fitted.model, setting.model, setting.training)
    parts = open_sequences(inputs.files)
    behaviours = sum(int((stop_before(part, window.start) - part.offsets[:-1]).sum()) for part in parts)
    point = Point(
        share,
        len(inputs.files),
        behaviours,
        result.of_users if setting.model.fused else result.bare_of_users,
        result.bare_ndcg,
        len(fitted.curve),
        sum(epoch.training_seconds for epoch in fitted.curve),
    )
    return point, fitted.loss


def _cut(file: Path, moment: int, folder: Path) -> Path:
    """The sequences of a file without what its users did from `moment` (epoch seconds) on, as a file in `folder`."""
    lists: dict[str, list[pa.Array]] = {}
    for part in open_sequences([file]):
        known = part.select(part.offsets[:-1], stop_before(part, moment))
        offsets = pa.array(known.offsets, pa.int32())
        for name, values in known.columns.items():
            lists.setdefault(name, []).append(pa.ListArray.from_arrays(offsets, pa.array(values)))
    table = pa.table({name: pa.chunked_array(chunks) for name, chunks in lists.items()})
    target = folder / file.name
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return target


def _draw(points: Sequence[Point], picture: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    behaviours = [point.behaviours for point in points]
    errors = [point.error for point in points]
    axes.errorbar(
        behaviours, [one.ndcg for one in points], errors, color="tab:blue", marker="o", capsize=3, label="as shipped"
    )
    network = [point.network_ndcg for point in points]
    axes.plot(behaviours, network, color="tab:gray", marker="o", label="network alone")
    axes.set_xscale("log", base=2)
    axes.set_xticks(behaviours, [f"{point.share:.3g}" for point in points])
    axes.minorticks_off()
    axes.set(xlabel="share of the buckets trained on", ylabel="validation NDCG@10")
    axes.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)
