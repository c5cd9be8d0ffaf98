"""What more data is worth: the same training on growing shares of the users, judged on the same ones."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa

from recbatch.errors import UsageError
from recbatch.training.dataset import open_sequences, stop_before
from recbatch.training.judging import Past, shipped
from recbatch.training.run import Progress
from recbatch.training.space import Setting
from recbatch.training.trainer import fit

FIGURES, PICTURE = "learning_curve.csv", "learning_curve.png"


@dataclass(frozen=True)
class Point:
    """A training on some of the sampled buckets.

    share: of the buckets that have rows, above 0 to 1. behaviours: before the window, of the users in them. ndcg,
    network_ndcg: validation NDCG@10 as shipped and of the bare network. judged: users that they are the mean over.
    seconds: of training, without validation.
    """

    share: float
    buckets: int
    behaviours: int
    ndcg: float
    network_ndcg: float
    judged: int
    epochs: int
    seconds: float


def learning_curve(
    past: Past,
    setting: Setting,
    shares: Sequence[float],
    folder: Path,
    progress: Callable[[float], Progress],
    ended: Callable[[Point], None],
) -> list[Point]:
    """Train `setting` on growing shares of the buckets; the smaller ones lie within the larger ones.

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
    points = []
    for size in sizes:
        some = replace(past, inputs=replace(past.inputs, files=ordered[:size]))
        share = size / len(files)
        points.append(_point(some, setting, share, progress(share)))
        ended(points[-1])
    return points


def last_gain(points: Sequence[Point]) -> str:
    """What doubling the data brought last, as a sentence."""
    before, after = points[-2:]
    if not 0 < before.behaviours < after.behaviours:
        return f"The buckets after {before.share:.3g} hold no behaviour to learn from."
    doublings = math.log2(after.behaviours / before.behaviours)
    gain = (after.ndcg - before.ndcg) / doublings
    of = f" ({gain / before.ndcg:+.1%})" if before.ndcg else ""
    return (
        f"From {before.share:.3g} to {after.share:.3g} of the buckets, {before.behaviours:,} to {after.behaviours:,} "
        f"behaviours, a doubling of the data changed NDCG@10 by {gain:+.4f}{of}, measured on {after.judged:,} users."
    )


def write(points: Sequence[Point], folder: Path) -> None:
    """Write `learning_curve.csv`, a row a share, and where matplotlib is installed `learning_curve.png`."""
    with (folder / FIGURES).open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Point)])
        writer.writeheader()
        writer.writerows(asdict(point) for point in points)
    if find_spec("matplotlib"):
        _draw(points, folder / PICTURE)


def _point(past: Past, setting: Setting, share: float, progress: Progress) -> Point:
    inputs, window = past.inputs, past.window
    fitted = fit(inputs, setting.model, setting.training, past.seed, window, progress)
    result = past.fit_fusion(fitted.model, setting.model, setting.training)
    parts = open_sequences(inputs.files)
    behaviours = sum(int((stop_before(part, window.start) - part.offsets[:-1]).sum()) for part in parts)
    return Point(
        share,
        len(inputs.files),
        behaviours,
        shipped(result, setting.model),
        result.bare_ndcg,
        len(past.validation(setting.training)),
        len(fitted.curve),
        sum(epoch.training_seconds for epoch in fitted.curve),
    )


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
    axes.plot(behaviours, [point.ndcg for point in points], color="tab:blue", marker="o", label="as shipped")
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
