"""The stage `train`: choose epochs and fusion on the validation window, then refit as of both other cuts."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from recbatch.allocator import keep_freed_memory
from recbatch.context import StageContext
from recbatch.model import artifact
from recbatch.model.artifact import Artifact
from recbatch.model.fusion import Fusion
from recbatch.model.recommender import Recommender
from recbatch.scoring.explain import Measured, measure
from recbatch.stages.inputs import EVALUATION, RELEASE, read_parameters, sampled_buckets, snapshot_times
from recbatch.stages.learning import CUTS, Catalogue, export_inputs, read_catalogue, read_past, validation_window
from recbatch.tables import schemas
from recbatch.tables.files import upload_folder
from recbatch.tables.ledger import StageResult
from recbatch.training import curves
from recbatch.training.dataset import open_sequences
from recbatch.training.judging import shipped
from recbatch.training.reporting import Reported
from recbatch.training.run import Inputs
from recbatch.training.trainer import FitResult, fit, refit
from recbatch.training.validation import Window

CURVE = "training_curve"


def train(context: StageContext) -> StageResult:
    """Sampled buckets to two artifacts of one model version: one as of the evaluation cut, and one for release.

    Raises:
        ModelError: there is too little to learn from, or the training diverged.
    """
    keep_freed_memory()
    config = context.config
    cuts = snapshot_times(context.tables)
    version = f"{cuts[RELEASE]:%Y%m%d}-{context.transaction.version:04d}"
    with tempfile.TemporaryDirectory(prefix="recbatch-train-") as scratch:
        past = read_catalogue(context, EVALUATION)
        inputs = export_inputs(context, EVALUATION, past.features, Path(scratch) / EVALUATION)
        window = validation_window(cuts)
        kept = _checkpoints(context)
        fitted = _fit(context, inputs, window, kept)
        fused = read_past(context, inputs, window).fit_fusion(fitted.model, config.model, config.training)
        metrics = {
            "epochs": float(fitted.epochs),
            "validation_ndcg@10": shipped(fused, config.model),
            "validation_ndcg@10_network": fused.bare_ndcg,
        }
        # Tested as it is released: a network that ends with the window before would be judged for its age as well.
        model = _refit(context, EVALUATION, inputs, fitted, kept)
        _save(context, version, EVALUATION, model, past, fused.fusion, metrics)
        current = read_catalogue(context, RELEASE)
        inputs = export_inputs(context, RELEASE, current.features, Path(scratch) / RELEASE)
        model = _refit(context, RELEASE, inputs, fitted, kept)
        measured = measure(model, model.item_vectors(current.features)[0], open_sequences(inputs.files)[0])
        path = _save(context, version, RELEASE, model, current, fused.fusion, metrics, measured)
        upload_folder(context.spark, kept / CURVE, f"{context.tables.root}/model_artifacts/{version}/{CURVE}")
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


def _fit(context: StageContext, inputs: Inputs, window: Window, kept: Path) -> FitResult:
    """Fit, with the course of it in `kept` beside the checkpoint, so that it can be watched."""
    config, course = context.config, kept / CURVE
    shutil.rmtree(course, ignore_errors=True)  # the epochs of an attempt that was killed are told again
    bar = Reported(context.progress.advance, "fit", config.training.max_epochs)
    with curves.events(course) as ended:
        fitted = fit(inputs, config.model, config.training, config.seed, window, bar, kept / "fit", ended)
    curves.write(fitted.curve, course)
    if fitted.diverged is not None:
        rate = config.training.learning_rate
        context.progress.notify(
            f"{fitted.diverged}: epoch {fitted.epochs} is kept; lower training.learning_rate (now {rate})"
        )
    return fitted


def _refit(context: StageContext, cut: str, inputs: Inputs, fitted: FitResult, kept: Path) -> Recommender:
    """The network of all behaviours before a cut, for the epochs that `fitted` found."""
    config = context.config
    return refit(
        inputs,
        config.model,
        config.training,
        config.seed,
        fitted.epochs,
        fitted.loss,
        Reported(context.progress.advance, f"refit for {cut}", fitted.epochs),
        [epoch.ndcg for epoch in fitted.curve],
        kept / f"refit_{cut}",
    )


def _checkpoints(context: StageContext) -> Path:
    """Where epochs and their course are kept until the training is done, for an attempt that follows a killed one.

    In the warehouse where the driver reaches it as a folder, else on the driver's own disk.
    """
    local = context.tables.local_path(f"{context.tables.root}/_training")
    name = hashlib.sha256(context.tables.root.encode()).hexdigest()[:16]
    return Path(local) if local is not None else Path(tempfile.gettempdir()) / f"recbatch-training-{name}"


def _save(
    context: StageContext,
    version: str,
    kind: str,
    model: Recommender,
    catalogue: Catalogue,
    fusion: Fusion,
    metrics: dict[str, float],
    measured: Measured | None = None,
) -> str:
    path = f"{context.tables.root}/model_artifacts/{version}/{kind}"
    table = CUTS[kind].normalization
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
