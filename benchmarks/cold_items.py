"""How well items are ranked that the network never saw, from their attributes alone.

.venv/bin/python benchmarks/cold_items.py --sequences Toys_and_Games.txt --attributes Toys_and_Games_attr.json

The protocol of benchmarks/quality.py, with a share of the items taken out of all that is learnt from. The users whose
last item is one of those are ranked for, among these items alone and among all. Beside the network: the popularity of
an item's attributes (the mean count of its values in what is learnt from), and chance.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from public_data import SAMPLE, Log, held_out, read_log, validation_window, write_arrow

from recbatch.config.learning import ModelSection, TrainingSection
from recbatch.evaluation.baselines import Scores, popularity
from recbatch.evaluation.metrics import Truth, ranking_metrics
from recbatch.evaluation.protocol import Cases, best_items, rows_of
from recbatch.model.recommender import user_vectors
from recbatch.ranking.topk import ItemMatrix
from recbatch.training.run import Inputs
from recbatch.training.trainer import fit

_TILE, _CUTOFF = 4096, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=Path, default=SAMPLE, metavar="FILE", help="default: a sample of Toys")
    parser.add_argument("--attributes", type=Path, metavar="FILE", help="of the items of the sequences")
    parser.add_argument("--share", type=float, default=0.2, help="of the items, hidden from training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("changes", nargs="*", metavar="option=value")
    options = parser.parse_args()
    if options.attributes is None:
        if options.sequences != SAMPLE:
            parser.error("--sequences needs --attributes: items that were never seen are ranked by nothing else")
        options.attributes = SAMPLE.with_suffix(".json")
    sections = OmegaConf.merge({"model": {}, "training": {"targets": "new"}}, OmegaConf.from_dotlist(options.changes))
    log = read_log(options.sequences, options.attributes, options.seed)
    hidden = np.random.default_rng(options.seed).random(log.n_items) < options.share
    known = _without(log, hidden)
    with tempfile.TemporaryDirectory(prefix="recbatch-cold-") as folder:
        file = write_arrow(known, Path(folder))
        fitted = fit(
            Inputs([file], known.features, 1),
            ModelSection.model_validate(OmegaConf.to_container(sections.model)),
            TrainingSection.model_validate(OmegaConf.to_container(sections.training)),
            options.seed,
            validation_window(),
            lambda epoch, step, steps, loss, metric: None,
        )
    cases = _of_hidden(held_out(known, known.split.test), hidden)
    tie_rank = torch.from_numpy(np.random.default_rng(options.seed).permutation(log.n_items))
    vectors, bias = fitted.model.item_vectors(known.features)
    scorers = {
        "network": Scores(user_vectors(fitted.model, vectors, cases.histories), ItemMatrix(vectors, bias, tie_rank)),
        "attribute popularity": popularity(_attribute_popularity(known), len(cases.histories), tie_rank),
    }
    figures: dict[str, dict[str, float]] = {}
    for name, eligible in (("among hidden items", hidden), ("among all items", np.ones_like(hidden))):
        found = {scorer: _recall(replace(cases, eligible=eligible), scores) for scorer, scores in scorers.items()}
        found["chance"] = _CUTOFF / int(eligible.sum())
        figures[name] = found
        print(f"{name:<20}" + "  ".join(f"{scorer} {value:.4f}" for scorer, value in found.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _without(log: Log, hidden: NDArray[np.bool_]) -> Log:
    """The log with hidden items only in what is not learnt from: the last two of a user who has others before."""
    sizes = np.diff(log.offsets)
    user = np.repeat(np.arange(len(sizes)), sizes)
    late = np.arange(len(log.items)) >= log.split.train_stop[user]
    kept = late | ~hidden[log.items]
    learning = np.bincount(user[kept & ~late], minlength=len(sizes)) > 0
    kept &= learning[user]
    offsets = np.concatenate([[0], np.bincount(user[kept], minlength=len(sizes)).cumsum()])
    learnt = log.items[kept & ~late]
    counts = torch.from_numpy(np.bincount(learnt, minlength=log.n_items).astype(np.float32))
    return replace(log, offsets=offsets, items=log.items[kept], popularity=type(log.popularity)(counts, counts))


def _attribute_popularity(log: Log) -> torch.Tensor:
    """(I,): the mean over an item's values of how often a value occurs in what is learnt from."""
    ((indptr, codes),) = log.features.categories
    owner = torch.repeat_interleave(torch.arange(log.n_items), indptr.diff())
    of_value = torch.zeros(int(codes.max()) + 1).index_add_(0, codes, log.popularity.ever[owner])
    return torch.zeros(log.n_items).index_add_(0, owner, of_value[codes]) / indptr.diff().clamp(min=1)


def _of_hidden(cases: Cases, hidden: NDArray[np.bool_]) -> Cases:
    """The users whose target is hidden."""
    users = np.flatnonzero(hidden[cases.truth.indices])
    offsets = cases.histories.offsets
    histories = cases.histories.select(offsets[users], offsets[users + 1])
    truth = Truth(np.arange(len(users) + 1), cases.truth.indices[users])
    return Cases(histories, truth, rows_of(cases.excluded, users) if cases.excluded else None, cases.eligible)


def _recall(cases: Cases, scores: Scores) -> float:
    lists = best_items(cases, scores, _CUTOFF, _TILE)
    return float(ranking_metrics(lists, cases.truth, [_CUTOFF])[f"recall@{_CUTOFF}"].mean())


if __name__ == "__main__":
    main()
