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
from public_data import SAMPLE, Log, read_log, test_window, validation_window, write_arrow

from recbatch.config.learning import ModelSection, TrainingSection
from recbatch.evaluation.baselines import Scores, popularity
from recbatch.evaluation.metrics import Truth, ranking_metrics
from recbatch.evaluation.protocol import Cases, best_items, rows_of
from recbatch.training.dataset import open_sequences
from recbatch.training.run import Inputs
from recbatch.training.trainer import fit
from recbatch.training.validation import Validation

_TILE, _CUTOFF = 4096, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=Path, default=SAMPLE, metavar="FILE", help="default: a sample of Toys")
    parser.add_argument("--attributes", type=Path, default=SAMPLE.with_suffix(".json"), metavar="FILE")
    parser.add_argument("--share", type=float, default=0.2, help="of the items, hidden from training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("changes", nargs="*", metavar="option=value")
    options = parser.parse_args()
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
        cases = Validation(open_sequences([file]), test_window(), True, log.n_items, options.seed)
        users, items = cases.encode(fitted.model, known.features)
    scorers = {
        "network": Scores(users, items),
        "attribute popularity": popularity(_attribute_popularity(known), len(cases), cases.tie_rank),
    }
    figures: dict[str, dict[str, float]] = {}
    for name, eligible in (("among hidden items", hidden), ("among all items", np.ones_like(hidden))):
        found = {scorer: _recall(cases, scores, hidden, eligible) for scorer, scores in scorers.items()}
        found["chance"] = _CUTOFF / int(eligible.sum())
        figures[name] = found
        print(f"{name:<20}" + "  ".join(f"{scorer} {value:.4f}" for scorer, value in found.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _without(log: Log, hidden: NDArray[np.bool_]) -> Log:
    """The log with hidden items among the last two of a user only, which nothing is learnt from."""
    sizes = np.diff(log.offsets)
    late = np.arange(len(log.items)) >= np.repeat(log.offsets[1:] - 2, sizes)
    kept = late | ~hidden[log.items]
    user = np.repeat(np.arange(len(sizes)), sizes)[kept]
    offsets = np.concatenate([[0], np.bincount(user, minlength=len(sizes)).cumsum()])
    learnt = log.items[kept & ~late]
    counts = torch.from_numpy(np.bincount(learnt, minlength=log.n_items).astype(np.float32))
    return replace(log, offsets=offsets, items=log.items[kept], popularity=type(log.popularity)(counts, counts))


def _attribute_popularity(log: Log) -> torch.Tensor:
    """(I,): the mean over an item's values of how often a value occurs in what is learnt from."""
    ((indptr, codes),) = log.features.categories
    owner = torch.repeat_interleave(torch.arange(log.n_items), indptr.diff())
    of_value = torch.zeros(int(codes.max()) + 1).index_add_(0, codes, log.popularity.ever[owner])
    return torch.zeros(log.n_items).index_add_(0, owner, of_value[codes]) / indptr.diff().clamp(min=1)


def _recall(cases: Validation, scores: Scores, hidden: NDArray[np.bool_], eligible: NDArray[np.bool_]) -> float:
    """Mean Recall@10 over the users whose target is hidden; all others are ranked for and not counted."""
    indptr, targets = cases.targets.indptr.numpy(), cases.targets.indices.numpy()
    cold = np.flatnonzero(hidden[targets] & (np.diff(indptr)[cases.targets.entry_rows().numpy()] == 1))
    rows = cases.targets.entry_rows().numpy()[cold]
    truth = Truth(np.arange(len(rows) + 1), targets[cold].astype(np.int64))
    offsets = cases.past.offsets
    chosen = replace(scores, users=scores.users[torch.from_numpy(rows)])
    excluded = None if cases.excluded is None else rows_of(cases.excluded, rows)
    of_them = Cases(cases.past.select(offsets[rows], offsets[rows + 1]), truth, excluded, eligible)
    lists = best_items(of_them, chosen, _CUTOFF, _TILE)
    return float(ranking_metrics(lists, truth, [_CUTOFF])[f"recall@{_CUTOFF}"].mean())


if __name__ == "__main__":
    main()
