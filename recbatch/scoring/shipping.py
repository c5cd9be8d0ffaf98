"""How a scorer gets to the workers: as a broadcast, or as a file that Spark brings to every host once."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark import SparkContext

from recbatch.config.sections import ScoringSection
from recbatch.scoring.bundle import Scorer
from recbatch.scoring.worker import Shipped

# From here on a second copy in every worker costs more than the detour over a file.
_LARGE = 32 << 20
_files: dict[str, Path] = {}


def is_mapped(section: ScoringSection, n_bytes: int) -> bool:
    """Whether workers map a file of that size, rather than to have a copy each."""
    return section.item_matrix == "mapped" or (section.item_matrix == "auto" and n_bytes > _LARGE)


@contextmanager
def shipped_to_workers(spark: SparkContext, scorer: Scorer, section: ScoringSection) -> Iterator[Shipped]:
    """Bring a scorer to the workers of all hosts: once a worker, or once a host where it is large."""
    if is_mapped(section, scorer.n_bytes):
        yield _as_file(spark, scorer)
        return
    broadcast = spark.broadcast(scorer.to_bytes())
    try:
        yield Shipped(scorer.digest, broadcast, None)
    finally:
        broadcast.destroy()


def shipped_for_session(spark: SparkContext, scorer: Scorer) -> Shipped:
    """As a file, which is there for as long as the session is."""
    return _as_file(spark, scorer)


def _as_file(spark: SparkContext, scorer: Scorer) -> Shipped:
    """The file stays until this process ends: an executor that starts later asks for every file of the session.

    Spark serves one file of a name, so that the same scorer is always the same file.
    """
    name = scorer.digest
    if name not in _files:
        folder = Path(tempfile.mkdtemp(prefix="recbatch-scorer-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _files[name] = folder / f"{name}.safetensors"
        scorer.save(_files[name])
    spark.addFile(str(_files[name]))
    return Shipped(name, None, _files[name].name)
