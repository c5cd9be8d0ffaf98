"""The protocol of `benchmarks/quality.py`: that of its peers, for every user of any file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import public_data
from benchmarks.public_data import Log, held_out
from benchmarks.sequences.protocol import Questions, leave_one_out, rank_metrics
from recbatch.evaluation.baselines import Scores
from recbatch.evaluation.metrics import ranking_metrics
from recbatch.evaluation.protocol import best_items
from recbatch.model.fusion import Popularity
from recbatch.model.items import ItemFeatures
from recbatch.ranking.topk import ItemMatrix

ROOT = Path(__file__).parents[2]
N_ITEMS, DIM = 30, 6
sequence_lists = st.lists(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=8), min_size=1, max_size=12)


def log_of(sequences: list[list[int]]) -> Log:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in sequences])]).astype(np.int64)
    items = np.array([item for one in sequences for item in one], np.int32)
    nothing = torch.zeros(N_ITEMS)
    return Log(offsets, items, ItemFeatures((), torch.zeros(N_ITEMS, 0)), Popularity(nothing, nothing))


@settings(max_examples=50, deadline=None)
@given(sequence_lists.filter(lambda lists: any(len(one) >= 3 for one in lists)), st.integers(0, 99))
def test_figures_are_those_of_the_protocol_of_the_peers(sequences: list[list[int]], seed: int) -> None:
    log = log_of(sequences)
    long = [np.array(one) + 1 for one in sequences if len(one) >= 3]
    theirs = leave_one_out(long)
    random = np.random.default_rng(seed)
    users = random.normal(size=(len(long), DIM)).astype(np.float32)
    vectors = random.normal(size=(N_ITEMS, DIM)).astype(np.float32)
    items = ItemMatrix(torch.from_numpy(vectors), torch.zeros(N_ITEMS), torch.arange(N_ITEMS))
    scores = np.pad((users.astype(np.float64) @ vectors.T), ((0, 0), (1, 0)))
    for holdout, questions in ((log.split.validation, theirs.validation), (log.split.test, theirs.test)):
        cases = held_out(log, holdout)
        offsets = cases.histories.offsets
        found = np.split(cases.histories.columns["item_idx"] + 1, offsets[1:-1])
        assert [one.tolist() for one in found] == [one.tolist() for one in questions.histories]
        lists = best_items(cases, Scores(torch.from_numpy(users), items), 10, 4096)
        ours = {name: value.mean() for name, value in ranking_metrics(lists, cases.truth, [10]).items()}
        expected = rank_metrics(lambda _: scores, Questions(questions.histories, questions.targets), len(long))
        assert {name: ours[name] for name in expected} == pytest.approx(expected)


@given(sequence_lists)
def test_only_what_lies_before_the_held_out_items_is_learnt_from(sequences: list[list[int]]) -> None:
    log = log_of(sequences)
    times = np.split(log.sequences.columns["event_time"], log.offsets[1:-1])
    window = public_data.validation_window()
    for one, time in zip(sequences, times, strict=True):
        learnt = len(one) if len(one) < 3 else len(one) - 2
        assert ((time < window.start).sum(), len(set(time.tolist()))) == (learnt, len(one))
        if len(one) >= 3:
            assert time[-2:].tolist() == [window.start, window.end]


def test_a_file_gives_every_figure_by_seed(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = [f"{user} {' '.join(map(str, random.integers(0, 50, random.integers(1, 9))))}" for user in range(80)]
    (tmp_path / "sequences.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "attributes.json").write_text(json.dumps({str(item): [item % 7, "any"] for item in range(0, 50, 2)}))
    files = ["--sequences", tmp_path / "sequences.txt", "--attributes", tmp_path / "attributes.json"]
    options = [
        "--seeds",
        "2",
        "--encoder",
        "gru",
        "--json",
        tmp_path / "out.json",
        "training.max_epochs=2",
        "model.dim=8",
    ]
    command = [sys.executable, ROOT / "benchmarks" / "quality.py", *files, *options]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    figures = json.loads((tmp_path / "out.json").read_text())
    for kind in ("valid", "test", "valid network", "test network", "test popularity", "test cooccurrence"):
        for metric in ("recall@10", "ndcg@10"):
            values = figures[kind][metric]["seeds"]
            assert figures[kind][metric]["mean"] == pytest.approx(np.mean(values))
            assert len(values) == 2
            assert all(0 <= value <= 1 for value in values)
    assert len(figures["epochs"]) == len(figures["seconds"]) == 2
    assert "mean over seeds" in done.stdout
