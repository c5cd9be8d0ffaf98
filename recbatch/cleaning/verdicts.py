"""Which of the suspected rows are duplicates and which users are bots, by the rows themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from recbatch.cleaning import suspects as suspicion
from recbatch.cleaning.duplicates import ACCEPTED, EXACT_DUPLICATE, KEY_DUPLICATE, OUTCOME, REJECTED, mark_outcome
from recbatch.cleaning.events import VALUES
from recbatch.cleaning.staging import ROW_ID, Staged
from recbatch.cleaning.suspects import HASH, KEY_HASH, KEYS, KIND, SECOND, USER_HASH, USERS
from recbatch.config.cleaning import CleaningSection
from recbatch.tables import columns as c

BOT_CODES = {"day": "bot_volume", "minute": "bot_rate"}
_STORED, _SAME_KEY, _BUSY, _BOT = "_stored", "_same_key", "_busy", "_bot"
# Rows that are sent to every executor; more are joined by a shuffle.
_BROADCAST_ROWS = 3_000_000


@dataclass(frozen=True)
class Judged:
    """Staged rows with their final `reasons` and `outcome`, all reason codes, and the counts of both.

    bots: user_id and reasons (a mask) of everyone found or known to be one, or None where nobody looked for them.
    """

    rows: DataFrame
    codes: Sequence[str]
    counts: dict[str, int]
    bots: DataFrame | None


def judge(
    staged: Staged, cleaning: CleaningSection, *, stored: DataFrame | None = None, known_bots: DataFrame | None = None
) -> Judged:
    """Find duplicates and bots among the accepted rows of `staged`.

    Args:
        stored: rows of the table `events` that new ones may repeat or add up with; they are never marked themselves.
        known_bots: user_id and reasons of bots found before.
    """
    limits = cleaning.bots.limits()
    codes = [*staged.codes, *[BOT_CODES[span] for span in limits]]
    if not cleaning.duplicate_key:  # and then no bots either, as the configuration makes sure
        outcome = F.when(F.col(c.REASONS) != 0, REJECTED).otherwise(ACCEPTED)
        counts = staged.counts | dict.fromkeys((EXACT_DUPLICATE, KEY_DUPLICATE), 0)
        return Judged(staged.rows.withColumn(OUTCOME, outcome), codes, counts, None)
    looked_at = _looked_at(staged, cleaning, limits, stored, known_bots)
    marked = mark_outcome(looked_at, cleaning.duplicate_key, VALUES, prefer=[F.desc(_STORED)])
    marked = marked.localCheckpoint(eager=True)
    bots = _bots(marked, limits, len(staged.codes), known_bots)
    new = _with_bots(marked.where(~F.col(_STORED)), bots)
    counts = staged.counts | _changes(new, staged, codes)
    duplicates = new.where(F.col(OUTCOME).isin(EXACT_DUPLICATE, KEY_DUPLICATE)).select(ROW_ID, OUTCOME)
    few = counts[EXACT_DUPLICATE] + counts[KEY_DUPLICATE] <= _BROADCAST_ROWS
    rows = staged.rows.join(F.broadcast(duplicates) if few else duplicates, on=ROW_ID, how="left")
    rows = _with_bots(rows, bots).withColumn(c.REASONS, F.col(c.REASONS).bitwiseOR(F.col(_BOT)))
    outcome = F.when(F.col(c.REASONS) != 0, REJECTED).otherwise(F.coalesce(OUTCOME, F.lit(ACCEPTED)))
    return Judged(rows.withColumn(OUTCOME, outcome), codes, counts, bots)


def _with_bots(rows: DataFrame, bots: DataFrame | None) -> DataFrame:
    """Add `_bot`, the mask of the bot reasons of the row's user, 0 for everybody else."""
    none = F.lit(0).cast("long")
    if bots is None:
        return rows.withColumn(_BOT, none)
    return rows.join(F.broadcast(bots), on=c.USER_ID, how="left").withColumn(_BOT, F.coalesce(_BOT, none))


def _looked_at(
    staged: Staged,
    cleaning: CleaningSection,
    limits: dict[str, int],
    stored: DataFrame | None,
    known_bots: DataFrame | None,
) -> DataFrame:
    """The rows, whole, that share a key hash with another one or whose user may be a bot; few, where all is well."""
    new = staged.rows.select(*VALUES, c.REASONS, c.SOURCE_FILE, ROW_ID, F.lit(False).alias(_STORED))
    rows, n_rows = new, staged.counts[ACCEPTED]
    if stored is not None:
        rows = rows.unionByName(_as_new(stored))
    rows = rows.withColumns(
        {
            USER_HASH: suspicion.user_hash(F.col(c.USER_ID)),
            KEY_HASH: suspicion.key_hash(cleaning.duplicate_key),
            SECOND: F.unix_timestamp(c.EVENT_TIME),
        }
    )
    cores = staged.rows.sparkSession.sparkContext.defaultParallelism
    observed = Observation("suspects")
    found = suspicion.suspects(rows.where(F.col(c.REASONS) == 0), limits, n_rows, cores)
    found = found.observe(observed, F.count(F.lit(1)).alias("n")).localCheckpoint(eager=True)
    few = int(observed.get["n"]) <= _BROADCAST_ROWS
    # Two tasks find the same hash where keys of different users collide.
    keys = found.where(F.col(KIND) == KEYS).select(F.col(HASH).alias(KEY_HASH), F.lit(True).alias(_SAME_KEY)).distinct()
    users = found.where(F.col(KIND) == USERS).select(F.col(HASH).alias(USER_HASH))
    if known_bots is not None:
        users = users.union(known_bots.select(suspicion.user_hash(F.col(c.USER_ID)))).distinct()
    users = users.withColumn(_BUSY, F.lit(True))
    return (
        rows.join(F.broadcast(keys) if few else keys, on=KEY_HASH, how="left")
        .join(F.broadcast(users), on=USER_HASH, how="left")
        .where(F.col(_SAME_KEY) | F.col(_BUSY))
        .drop(KEY_HASH, USER_HASH, SECOND)
    )


def _as_new(stored: DataFrame) -> DataFrame:
    none = F.lit(None).cast("long")
    return stored.select(
        *VALUES, F.lit(0).cast("long").alias(c.REASONS), c.SOURCE_FILE, none.alias(ROW_ID), F.lit(True).alias(_STORED)
    )


def _bots(marked: DataFrame, limits: dict[str, int], first_bit: int, known: DataFrame | None) -> DataFrame | None:
    """user_id and the mask of the limits that the user's distinct events exceed."""
    single = marked.where((F.col(OUTCOME) == ACCEPTED) & F.col(_BUSY))
    found = [] if known is None else [known.select(c.USER_ID, F.col(c.REASONS).alias(_BOT))]
    for bit, (span, limit) in enumerate(limits.items(), start=first_bit):
        cell = F.floor(F.unix_timestamp(c.EVENT_TIME) / suspicion.SECONDS[span])
        busy = single.groupBy(c.USER_ID, cell).count().where(F.col("count") > limit)
        found.append(busy.select(c.USER_ID, F.lit(1 << bit).cast("long").alias(_BOT)))
    if not found:
        return None
    return reduce(DataFrame.union, found).groupBy(c.USER_ID).agg(F.bit_or(_BOT).alias(_BOT)).localCheckpoint(eager=True)


def _changes(new: DataFrame, staged: Staged, codes: Sequence[str]) -> dict[str, int]:
    """The counts that duplicates and bots change, from the rows that were looked at alone."""
    bot = F.col(_BOT) != 0
    newly_rejected = bot & (F.col(c.REASONS) == 0)
    row = new.agg(
        *[F.count_if(~bot & (F.col(OUTCOME) == kind)).alias(kind) for kind in (EXACT_DUPLICATE, KEY_DUPLICATE)],
        F.count_if(newly_rejected).alias(REJECTED),
        *[
            F.count_if(F.col(_BOT).bitwiseAND(F.lit(1 << bit).cast("long")) != 0).alias(f"reason:{code}")
            for bit, code in enumerate(codes)
            if bit >= len(staged.codes)
        ],
    ).first()
    found = {name: int(value) for name, value in (row.asDict() if row is not None else {}).items()}
    lost = sum(found[name] for name in (EXACT_DUPLICATE, KEY_DUPLICATE, REJECTED))
    found[REJECTED] += staged.counts[REJECTED]
    found[ACCEPTED] = staged.counts[ACCEPTED] - lost
    return {name: value for name, value in found.items() if value or not name.startswith("reason:")}
