"""How well the shipped default ranks, on a public protocol: leave-one-out, all items, the mean over seeds.

.venv/bin/python benchmarks/quality.py --sequences Toys_and_Games.txt --attributes Toys_and_Games_attr.json

A line of the file is `user item item ...` in the order of time. The network and the counts learn from all but the last
two items of every user; epochs and weights of the score are chosen on the last but one; the last is ranked with that
one in the history, among all items but the user's other ones. Items are numbered anew, at random, so that their numbers
tell nothing. Options of the pipeline can be changed by the end of the line: model.dim=128 training.batch_rows=512.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from public_data import SAMPLE, Log, cooccurrence, read_log, test_window, validation_window, write_arrow

from recbatch.config.learning import ModelSection, TrainingSection
from recbatch.config.sections import NeighboursSection
from recbatch.evaluation.baselines import Scores, popularity
from recbatch.evaluation.metrics import Truth, ranking_metrics
from recbatch.evaluation.protocol import Cases, best_items
from recbatch.model.fusion import Fusion
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import Recommender
from recbatch.ranking.topk import ItemMatrix
from recbatch.training.dataset import open_sequences
from recbatch.training.fusion import fit_fusion
from recbatch.training.run import Inputs
from recbatch.training.trainer import fit
from recbatch.training.validation import Validation

_TILE = 4096
_CUTOFF = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=Path, default=SAMPLE, metavar="FILE", help="default: a sample of Toys")
    parser.add_argument("--attributes", type=Path, metavar="FILE", help='JSON: {"item": [value, ...], ...}')
    parser.add_argument("--encoder", choices=["conv", "conv_pool", "gru"], default="conv")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--network-only", action="store_true", help="without co-occurrence and popularity")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures to this file")
    parser.add_argument("changes", nargs="*", metavar="option=value")
    options = parser.parse_args()
    sections = {"model": {"encoder": options.encoder}, "training": {"targets": "new"}, "features": {"neighbours": {}}}
    sections = OmegaConf.to_container(OmegaConf.merge(sections, OmegaConf.from_dotlist(options.changes)))
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    results = [_one_seed(options, sections, seed) for seed in seeds]
    figures = _collected(results)
    print(
        "\nmean over seeds",
        *[_line(kind, value) for kind, value in figures.items() if isinstance(value, dict)],
        sep="\n  ",
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _one_seed(options: argparse.Namespace, sections: dict[str, Any], seed: int) -> dict[str, Any]:
    began = time.monotonic()
    log = read_log(options.sequences, options.attributes, seed)
    model_config = ModelSection.model_validate(sections["model"])
    training = TrainingSection.model_validate(sections["training"])
    with tempfile.TemporaryDirectory(prefix="recbatch-quality-") as folder:
        file = write_arrow(log, Path(folder))
        inputs = Inputs([file], log.features, 1)
        fitted = fit(inputs, model_config, training, seed, validation_window(), _Lines(seed, options.encoder))
        parts = open_sequences([file])
        valid, test = (
            Validation(parts, window, True, log.n_items, seed) for window in (validation_window(), test_window())
        )
        neighbours = cooccurrence(log, NeighboursSection.model_validate(sections["features"]["neighbours"]))
        fusion = None
        if not options.network_only:
            found = fit_fusion(fitted.model, log.features, neighbours, log.popularity, valid, model_config)
            fusion = found.fusion
            print(f"seed {seed}: {fusion}")
        ranked = {
            kind: _ranked(fitted.model, log, neighbours, fusion, cases)
            for kind, cases in (("valid", valid), ("test", test))
        }
        if fusion is not None:
            ranked["valid network"] = _ranked(fitted.model, log, neighbours, None, valid)
            ranked["test network"] = _ranked(fitted.model, log, neighbours, None, test)
        baselines = {
            "popularity": popularity(log.popularity.ever, len(test), test.tie_rank),
            "cooccurrence": _counts_alone(log, neighbours, test, model_config),
        }
        for name, scores in baselines.items():
            ranked[f"test {name}"] = _figures(test, scores, log)
    seconds = time.monotonic() - began
    for kind, found_figures in ranked.items():
        print(f"seed {seed}: {_line(kind, found_figures)}", flush=True)
    print(f"seed {seed}: {seconds:.0f} s, epoch {fitted.epochs} of {len(fitted.curve)}", flush=True)
    curve = [[one.training_seconds, one.loss, one.ndcg] for one in fitted.curve]
    return {**ranked, "epochs": fitted.epochs, "seconds": seconds, "curve": curve}


def _ranked(
    model: Recommender, log: Log, neighbours: Neighbours, fusion: Fusion | None, cases: Validation
) -> dict[str, float]:
    users, items = cases.encode(model, log.features)
    if fusion is None:
        return _figures(cases, Scores(users, items), log)
    additions = neighbours.additions(cases.past, fusion)
    fused = ItemMatrix(items.vectors, fusion.bias(items.bias, log.popularity), cases.tie_rank)
    return _figures(cases, Scores(users, fused, additions), log)


def _counts_alone(log: Log, neighbours: Neighbours, cases: Validation, config: ModelSection) -> Scores:
    from recbatch.evaluation.baselines import cooccurrence as ranked_by_counts

    return ranked_by_counts(neighbours, cases.past, config.fusion_behaviours, config.fusion_decay, cases.tie_rank)


def _figures(cases: Validation, scores: Scores, log: Log) -> dict[str, float]:
    truth = Truth(cases.targets.indptr.numpy(), cases.targets.indices.numpy())
    everything = Cases(cases.past, truth, cases.excluded, np.ones(log.n_items, np.bool_))
    values = ranking_metrics(best_items(everything, scores, _CUTOFF, _TILE), truth, [_CUTOFF])
    return {name: float(values[name].mean()) for name in (f"recall@{_CUTOFF}", f"ndcg@{_CUTOFF}")}


def _line(kind: str, figures: dict[str, Any]) -> str:
    values = {name: value["mean"] if isinstance(value, dict) else value for name, value in figures.items()}
    return f"{kind:<18} " + "  ".join(f"{name} {value:.4f}" for name, value in values.items())


def _collected(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Of every kind and figure the mean and each seed's value; epochs and seconds by seed."""
    kinds = [kind for kind, value in results[0].items() if isinstance(value, dict)]
    figures: dict[str, Any] = {
        kind: {
            name: {
                "mean": float(np.mean([one[kind][name] for one in results])),
                "seeds": [one[kind][name] for one in results],
            }
            for name in results[0][kind]
        }
        for kind in kinds
    }
    return figures | {name: [one[name] for one in results] for name in ("epochs", "seconds", "curve")}


class _Lines:
    """A line an epoch."""

    def __init__(self, seed: int, name: str) -> None:
        self._began, self._text = time.monotonic(), f"seed {seed} {name}"

    def __call__(self, epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None:
        if metric is not None:
            seconds = time.monotonic() - self._began
            print(
                f"{self._text} epoch {epoch}: loss {loss:.4f}, valid ndcg@10 {metric:.4f}, {seconds:.0f} s", flush=True
            )


if __name__ == "__main__":
    main()
