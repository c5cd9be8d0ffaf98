"""The stage `train`: fit on the past, choose epochs and fusion on a validation cut, refit on everything for release."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from recbatch.allocator import keep_freed_memory
from recbatch.context import StageContext
from recbatch.model import artifact
from recbatch.model.artifact import Artifact
from recbatch.model.fusion import Fusion
from recbatch.model.items import ItemFeatures
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import Recommender
from recbatch.scoring.explain import Measured, measure
from recbatch.stages.inputs import (
    EVALUATION,
    RELEASE,
    VALIDATION,
    normalised,
    normalised_features,
    read_parameters,
    read_popularity,
    sampled_buckets,
    snapshot_times,
)
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.arrow import export_buckets, read_arrow
from recbatch.tables.files import upload_folder
from recbatch.tables.ledger import StageResult
from recbatch.tables.schemas import TableSpec
from recbatch.training import curves
from recbatch.training.batches import Weighting
from recbatch.training.dataset import open_sequences
from recbatch.training.fusion import FusionResult, fit_fusion
from recbatch.training.run import Inputs
from recbatch.training.trainer import FitResult, fit, refit, threads
from recbatch.training.validation import Validation, Window

# What the sequences of each cut are normalised by.
_NORMALIZATION = {
    schemas.USER_SEQUENCES.name: schemas.NORMALIZATION,
    schemas.EVALUATION_USER_SEQUENCES.name: schemas.EVALUATION_NORMALIZATION,
}


CURVE = "training_curve"


@dataclass(frozen=True)
class _Catalogue:
    """Item-level tables of one cut, on the driver."""

    features: ItemFeatures
    item_ids: list[str]
    neighbours: Neighbours


def train(context: StageContext) -> StageResult:
    """Sampled buckets to two artifacts of one model version: one that knows the past only, and one for release.

    Raises:
        ModelError: there is too little to learn from, or the training diverged.
    """
    keep_freed_memory()
    config = context.config
    cuts = snapshot_times(context.tables)
    version = f"{cuts[RELEASE]:%Y%m%d}-{context.transaction.version:04d}"
    with tempfile.TemporaryDirectory(prefix="recbatch-train-") as scratch:
        past = _catalogue(context, EVALUATION)
        inputs = _inputs(context, schemas.EVALUATION_USER_SEQUENCES, past, Path(scratch) / EVALUATION)
        if config.model.fused:
            prior = read_popularity(context.tables, schemas.VALIDATION_ITEM_POPULARITY, len(past.features))
            inputs = replace(inputs, popularity=prior)
        window = Window(int(cuts[VALIDATION].timestamp()), int(cuts[EVALUATION].timestamp()))
        kept = _checkpoints(context)
        bar = _Bar(context, "fit")
        fitted = fit(inputs, config.model, config.training, config.seed, window, bar, kept / EVALUATION)
        if fitted.diverged is not None:
            rate = config.training.learning_rate
            context.progress.notify(
                f"{fitted.diverged}: epoch {fitted.epochs} is kept; lower training.learning_rate (now {rate})"
            )
        fused = _fuse(context, inputs, fitted, past, window)
        metrics = {
            "epochs": float(fitted.epochs),
            "validation_ndcg@10": fused.ndcg if config.model.fused else fused.bare_ndcg,
            "validation_ndcg@10_network": fused.bare_ndcg,
        }
        _save(context, version, EVALUATION, fitted.model, past, fused.fusion, metrics)
        current = _catalogue(context, RELEASE)
        inputs = _inputs(context, schemas.USER_SEQUENCES, current, Path(scratch) / RELEASE)
        model = refit(
            inputs,
            config.model,
            config.training,
            config.seed,
            fitted.epochs,
            fitted.loss,
            _Bar(context, "refit"),
            [epoch.ndcg for epoch in fitted.curve],
            kept / RELEASE,
        )
        measured = measure(model, model.item_vectors(current.features)[0], open_sequences(inputs.files)[0])
        path = _save(context, version, RELEASE, model, current, fused.fusion, metrics, measured)
        curves.write(fitted.curve, Path(scratch) / CURVE)
        upload_folder(context.spark, Path(scratch) / CURVE, f"{context.tables.root}/model_artifacts/{version}/{CURVE}")
        shutil.rmtree(kept, ignore_errors=True)
    row = (version, context.transaction.version, path, metrics, cuts[RELEASE], context.run_id)
    frame = context.spark.createDataFrame([row], schemas.CANDIDATES.schema)
    context.tables.append(schemas.CANDIDATES, frame, context.transaction)
    return StageResult(
        row_counts={"buckets": len(sampled_buckets(context.config))},
        figures=metrics | {"final_loss": fitted.curve[-1].loss},
        message=f"model {version}: {fitted.loss} softmax, {fitted.epochs} epochs, "
        f"validation NDCG@10 {metrics['validation_ndcg@10']:.4f}",
    )


def _catalogue(context: StageContext, cut: str) -> _Catalogue:
    features, neighbours, normalization = {
        EVALUATION: (
            schemas.EVALUATION_ITEM_FEATURES,
            schemas.EVALUATION_ITEM_NEIGHBOURS,
            schemas.EVALUATION_NORMALIZATION,
        ),
        RELEASE: (schemas.ITEM_FEATURES, schemas.ITEM_NEIGHBOURS, schemas.NORMALIZATION),
    }[cut]
    rows = read_arrow(context.tables, features).sort_by(c.ITEM_IDX)
    parameters = read_parameters(context.tables, normalization)
    return _Catalogue(
        normalised_features(rows, parameters, parameters),
        rows[c.ITEM_ID].to_pylist(),
        Neighbours.from_arrow(read_arrow(context.tables, neighbours), len(rows)),
    )


def _inputs(context: StageContext, sequences: TableSpec, catalogue: _Catalogue, folder: Path) -> Inputs:
    buckets = sampled_buckets(context.config)
    context.progress.notify(f"sampling {len(buckets)} of {context.config.features.buckets} buckets of {sequences.name}")
    parameters = read_parameters(context.tables, _NORMALIZATION[sequences.name])
    files = export_buckets(context.tables, sequences, buckets, folder, partial(normalised, parameters=parameters))
    types = context.config.input.events.types()
    return Inputs(files, catalogue.features, len(types), weighting=Weighting.create(context.config.training, types))


def _checkpoints(context: StageContext) -> Path:
    """Where epochs are kept until the training is done, for an attempt that follows one that was killed.

    In the warehouse where the driver reaches it as a folder, else on the driver's own disk.
    """
    local = context.tables.local_path(f"{context.tables.root}/_training")
    name = hashlib.sha256(context.tables.root.encode()).hexdigest()[:16]
    return Path(local) if local is not None else Path(tempfile.gettempdir()) / f"recbatch-training-{name}"


def _fuse(context: StageContext, inputs: Inputs, fitted: FitResult, past: _Catalogue, window: Window) -> FusionResult:
    """Fit the weights of the score with neighbours and popularity that do not know the validation window either."""
    config = context.config
    popularity = read_popularity(context.tables, schemas.VALIDATION_ITEM_POPULARITY, len(past.features))
    before = read_arrow(context.tables, schemas.VALIDATION_ITEM_NEIGHBOURS)
    new_only = config.training.targets == "new"
    with threads(config.training.threads):
        validation = Validation(open_sequences(inputs.files), window, new_only, len(past.features), config.seed)
        neighbours = Neighbours.from_arrow(before, len(past.features))
        return fit_fusion(fitted.model, past.features, neighbours, popularity, validation, config.model)


def _save(
    context: StageContext,
    version: str,
    kind: str,
    model: Recommender,
    catalogue: _Catalogue,
    fusion: Fusion,
    metrics: dict[str, float],
    measured: Measured | None = None,
) -> str:
    path = f"{context.tables.root}/model_artifacts/{version}/{kind}"
    table = schemas.NORMALIZATION if kind == RELEASE else schemas.EVALUATION_NORMALIZATION
    made = Artifact(
        model,
        catalogue.neighbours,
        fusion if context.config.model.fused else None,
        artifact.hash_item_ids(catalogue.item_ids),
        {name: asdict(one) for name, one in sorted(read_parameters(context.tables, table).items())},
        {"item_index": context.tables.version(schemas.ITEM_INDEX), "normalization": context.tables.version(table)},
        metrics,
        *(measured or ()),
    )
    with tempfile.TemporaryDirectory(prefix="recbatch-model-") as scratch:
        artifact.save(made, Path(scratch) / kind)
        upload_folder(context.spark, Path(scratch) / kind, path)
    return path


class _Bar:
    """The trainer's progress as the stage's."""

    def __init__(self, context: StageContext, name: str) -> None:
        self._advance, self._name = context.progress.advance, name
        self._metric = ""

    def __call__(self, epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None:
        if metric is not None:
            self._metric = f", validation NDCG@10 {metric:.4f}"
        self._advance(f"{self._name} epoch {epoch}", step, steps, f"loss {loss:.3f}{self._metric}")
