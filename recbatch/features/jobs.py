"""The two Spark jobs behind the features of users and items: first by users, then by the sources of pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pyspark.sql import DataFrame

from recbatch.config.inputs import Missing
from recbatch.context import StageContext
from recbatch.features import amounts, building, cooccurrence
from recbatch.features.building import COUNTS, EVALUATED, PAIRS, TARGETS, Recipe
from recbatch.features.counts import AMOUNTS, Counts
from recbatch.features.cuts import Cuts, Decay
from recbatch.features.deliveries import Deliveries
from recbatch.features.delivery import PLACE
from recbatch.features.pasts import text_hashes
from recbatch.features.user_sequences import with_all_buckets
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.arrow import read_arrow
from recbatch.tables.bulk import files_by_bucket

USER_TABLES = (
    schemas.USER_SEQUENCES,
    schemas.EARLIER_BEHAVIOURS,
    schemas.EVALUATION_USER_SEQUENCES,
    schemas.EVALUATION_TARGETS,
)
_NEIGHBOUR_TABLES = tuple(schemas.ALL[name] for name in cooccurrence.NEIGHBOURS)
_EVENTS_A_TASK = 1_000_000
_PAIRS_A_PART = 6_000_000
_MOST_PARTS = 4096
_SOURCES_A_PART = 1 << 16  # which two bytes a pair can tell apart


@dataclass(frozen=True)
class Build:
    """What a run builds of `rows`, rows of `behaviours`.

    n_events: about how many events there are in all. base: the versions of the user tables to build upon; None: anew.
    same_evaluation: whether the evaluation cut is that of the base. learned: strategies for missing amounts.
    """

    rows: DataFrame
    cuts: Cuts
    first_event: int
    n_events: int
    base: Mapping[str, int] | None
    same_evaluation: bool
    learned: Mapping[str, Missing]


def build(context: StageContext, plan: Build, write_items: Callable[[Counts], None]) -> int:
    """Write the tables of users, of neighbours and, by `write_items`, of what was counted about items.

    Returns how many of the events are of items without a number.
    """
    section, spark = context.config.features, context.spark.sparkContext
    index = read_arrow(context.tables, schemas.ITEM_INDEX, columns=[c.ITEM_ID, c.ITEM_IDX]).sort_by(c.ITEM_IDX)
    hashes = spark.broadcast(text_hashes(index[c.ITEM_ID].combine_chunks()))
    decay = spark.broadcast(Decay.create(plan.cuts, section.neighbours.half_life_days, plan.first_event))
    cores = spark.defaultParallelism
    n_parts = min(max(-(-plan.n_events * section.neighbours.window // _PAIRS_A_PART), cores), _MOST_PARTS)
    n_parts = max(n_parts, -(-len(index) // _SOURCES_A_PART))
    methods = dict(zip(AMOUNTS, (section.price, section.quantity), strict=True))
    recipe = Recipe(
        plan.cuts,
        decay,
        hashes,
        section.sequence_length,
        section.recent_days,
        section.neighbours.window,
        n_parts,
        amounts.logarithms(methods),
        amounts.distinct(methods, plan.learned),
        {} if plan.base is None else _previous(context, plan.base),
        plan.same_evaluation,
    )
    with context.tables.scratch("features") as scratch:
        users = Deliveries(context.tables, scratch, USER_TABLES, [COUNTS, PAIRS])
        users.make(_spread(plan, section.buckets, cores), lambda delivery: building.build(recipe, delivery))
        _commit_users(context, plan, users)
        counts = Counts.zero(len(index))
        for content in users.contents(COUNTS):
            counts.add(content)
        # Small jobs, one after another, leave cores idle; neighbours are one large one.
        with ThreadPoolExecutor(1) as pool:
            items = pool.submit(write_items, counts)
            _write_neighbours(context, recipe, users, counts, scratch)
            items.result()
        return sum(row[PLACE] for row in users.of(COUNTS))


def _previous(context: StageContext, base: Mapping[str, int]) -> dict[int, tuple[list[str], list[str]]]:
    """By bucket, the files of what the base left: what is earlier comes first."""
    earlier, recent = (
        files_by_bucket(str(context.tables.local_folder(spec)), base[spec.name])
        for spec in (schemas.EARLIER_BEHAVIOURS, schemas.USER_SEQUENCES)
    )
    buckets = range(context.config.features.buckets)
    return {bucket: (earlier.get(bucket, []), recent.get(bucket, [])) for bucket in buckets}


def _spread(plan: Build, buckets: int, cores: int) -> DataFrame:
    """The rows by bucket, in tasks that hold some million events at most, where the buckets allow it."""
    tasks = min(max(-(-plan.n_events // _EVENTS_A_TASK), cores), buckets)
    # Without a number of its own the stage would be coalesced to one task.
    return with_all_buckets(plan.rows, buckets).repartitionById(tasks, c.USER_BUCKET)


def _commit_users(context: StageContext, plan: Build, users: Deliveries) -> None:
    """Replace the buckets that were made; all that a table holds where nothing is built upon."""
    n_buckets = context.config.features.buckets
    for spec in USER_TABLES:
        made = {row[PLACE] for row in users.of(spec.name)}
        if plan.base is None:
            made |= {int(one[c.USER_BUCKET]) for one in context.tables.partitions(spec)} | set(range(n_buckets))
        elif spec.name in (EVALUATED, TARGETS) and not plan.same_evaluation:
            made = set(range(n_buckets))
        if made:
            users.commit(spec.name, sorted(made), context.transaction)


def _write_neighbours(context: StageContext, recipe: Recipe, users: Deliveries, counts: Counts, scratch: str) -> None:
    section, spark = context.config.features.neighbours, context.spark.sparkContext
    damping = spark.broadcast(cooccurrence.target_damping(counts.of_items("target"), section))
    strongest = cooccurrence.Strongest(
        section, recipe.decay, recipe.item_hashes, damping, recipe.part_width, users.paths(PAIRS)
    )
    neighbours = Deliveries(context.tables, f"{scratch}/neighbours", _NEIGHBOUR_TABLES, [])
    parts = users.rows(PAIRS).repartitionById(recipe.n_parts, PLACE)
    neighbours.make(parts, lambda delivery: cooccurrence.choose(strongest, delivery))
    for spec in _NEIGHBOUR_TABLES:
        neighbours.commit(spec.name, [], context.transaction)
