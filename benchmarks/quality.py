"""How well the shipped default ranks, on a public protocol: leave-one-out, all items, the mean over seeds.

.venv/bin/python benchmarks/quality.py --sequences Toys_and_Games.txt --attributes Toys_and_Games_attr.json

A line of the file is `user item item ...` in the order of time. The network and the counts learn from all but the last
two items of every user; epochs and weights of the score are chosen on the last but one; the last is ranked with that
one in the history, among all items but the user's other ones. Users with fewer than three are only learnt from. Epochs
are judged by the network alone. Items are numbered anew, at random, so that their numbers
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
import torch
from omegaconf import OmegaConf
from public_data import SAMPLE, Log, cooccurrence, held_out, read_log, validation_window, write_arrow
from torch import Tensor

from recbatch.config.learning import ModelSection, TrainingSection
from recbatch.config.sections import NeighboursSection
from recbatch.evaluation.baselines import Scores, popularity
from recbatch.evaluation.baselines import cooccurrence as by_counts
from recbatch.evaluation.metrics import ranking_metrics
from recbatch.evaluation.protocol import Cases, best_items
from recbatch.model.fusion import Fusion
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import Recommender, user_vectors
from recbatch.ranking.topk import ItemMatrix
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
        valid, test = (held_out(log, part) for part in (log.split.validation, log.split.test))
        tie_rank = torch.from_numpy(np.random.default_rng(seed).permutation(log.n_items))
        neighbours = cooccurrence(log, NeighboursSection.model_validate(sections["features"]["neighbours"]))
        fusion = None
        if not options.network_only:
            window = Validation([log.sequences], validation_window(), True, log.n_items, seed)
            found = fit_fusion(fitted.model, log.features, neighbours, log.popularity, window, model_config)
            fusion = found.fusion
            print(f"seed {seed}: {fusion}")
        ranked = {
            kind: _ranked(fitted.model, log, neighbours, fusion, cases, tie_rank)
            for kind, cases in (("valid", valid), ("test", test))
        }
        if fusion is not None:
            ranked["valid network"] = _ranked(fitted.model, log, neighbours, None, valid, tie_rank)
            ranked["test network"] = _ranked(fitted.model, log, neighbours, None, test, tie_rank)
        baselines = {
            "popularity": popularity(log.popularity.ever, len(test.histories), tie_rank),
            "cooccurrence": by_counts(
                neighbours, test.histories, model_config.fusion_behaviours, model_config.fusion_decay, tie_rank
            ),
        }
        for name, scores in baselines.items():
            ranked[f"test {name}"] = _figures(test, scores)
    seconds = time.monotonic() - began
    for kind, found_figures in ranked.items():
        print(f"seed {seed}: {_line(kind, found_figures)}", flush=True)
    print(f"seed {seed}: {seconds:.0f} s, epoch {fitted.epochs} of {len(fitted.curve)}", flush=True)
    curve = [[one.training_seconds, one.loss, one.ndcg] for one in fitted.curve]
    return {**ranked, "epochs": fitted.epochs, "seconds": seconds, "curve": curve}


def _ranked(
    model: Recommender, log: Log, neighbours: Neighbours, fusion: Fusion | None, cases: Cases, tie_rank: Tensor
) -> dict[str, float]:
    vectors, bias = model.item_vectors(log.features)
    users = user_vectors(model, vectors, cases.histories)
    if fusion is None:
        return _figures(cases, Scores(users, ItemMatrix(vectors, bias, tie_rank)))
    additions = neighbours.additions(cases.histories, fusion)
    fused = ItemMatrix(vectors, fusion.bias(bias, log.popularity), tie_rank)
    return _figures(cases, Scores(users, fused, additions))


def _figures(cases: Cases, scores: Scores) -> dict[str, float]:
    values = ranking_metrics(best_items(cases, scores, _CUTOFF, _TILE), cases.truth, [_CUTOFF])
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
