"""Which of the suspected rows are duplicates and which users are bots, by the rows themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from recbatch.cleaning import suspects as suspicion
from recbatch.cleaning.duplicates import ACCEPTED, EXACT_DUPLICATE, KEY_DUPLICATE, OUTCOME, REJECTED, mark_outcome
from recbatch.cleaning.events import VALUES
from recbatch.cleaning.staging import ROW_ID, Staged, Tally, missing_columns, missing_mask
from recbatch.cleaning.suspects import HASH, KEY_HASH, KEYS, KIND, SECOND, USER_HASH, USERS
from recbatch.config.cleaning import CleaningSection
from recbatch.tables import columns as c

BOT_CODES = {"day": "bot_volume", "minute": "bot_rate"}
_STORED, _SAME_KEY, _BUSY, _BOT = "_stored", "_same_key", "_busy", "_bot"
# Rows that are sent to every executor; more are joined by a shuffle.
BROADCAST_ROWS = 3_000_000


@dataclass(frozen=True)
class Judged:
    """Staged rows with final `reasons` and `outcome`, the codes of the reasons, and the tally of what is accepted.

    duplicates: rows by kind. bots: user_id and `reasons` (a mask) of all that are known now; None where nobody looked.
    """

    rows: DataFrame
    codes: Sequence[str]
    tally: Tally
    duplicates: dict[str, int]
    bots: DataFrame | None

    def counts(self) -> dict[str, int]:
        """Rows read, of each outcome, and by reason code (`reason:<code>`)."""
        reasons, n_duplicates = self.tally.reasons, sum(self.duplicates.values())
        counts = {"read": reasons.total() + n_duplicates, ACCEPTED: reasons[0], **self.duplicates}
        counts[REJECTED] = reasons.total() - reasons[0]
        for bit, code in enumerate(self.codes):
            if n := sum(rows for mask, rows in reasons.items() if mask >> bit & 1):
                counts[f"reason:{code}"] = n
        return counts


def judge(
    staged: Staged, cleaning: CleaningSection, *, stored: DataFrame | None = None, known_bots: DataFrame | None = None
) -> Judged:
    """Find duplicates and bots among the accepted rows of `staged`.

    Args:
        stored: rows of the table `events` that new ones may repeat or add up with; they are never marked themselves.
        known_bots: user_id and reasons (an array) of bots found before.
    """
    limits = cleaning.bots.limits()
    codes = bot_codes(staged.codes, cleaning)
    if not cleaning.duplicate_key:  # and then no bots either, as the configuration makes sure
        outcome = F.when(F.col(c.REASONS) != 0, REJECTED).otherwise(ACCEPTED)
        none = dict.fromkeys((EXACT_DUPLICATE, KEY_DUPLICATE), 0)
        return Judged(staged.rows.withColumn(OUTCOME, outcome), codes, staged.tally, none, None)
    if known_bots is not None:
        bits = [F.when(F.array_contains(c.REASONS, code), 1 << bit).otherwise(0) for bit, code in enumerate(codes)]
        known_bots = known_bots.select(c.USER_ID, reduce(Column.__add__, bits).cast("long").alias(c.REASONS))
    looked_at = _looked_at(staged, cleaning, limits, stored, known_bots)
    marked = mark_outcome(looked_at, cleaning.duplicate_key, VALUES, prefer=[F.desc(_STORED)])
    marked = marked.localCheckpoint(eager=True)
    bots = _bots(marked, limits, len(staged.codes), known_bots)
    new = _with_bots(marked.where(~F.col(_STORED)), bots)
    tally, found = _after(staged.tally, new)
    duplicates = new.where(F.col(OUTCOME).isin(EXACT_DUPLICATE, KEY_DUPLICATE)).select(ROW_ID, OUTCOME)
    few = sum(found.values()) <= BROADCAST_ROWS
    rows = staged.rows.join(F.broadcast(duplicates) if few else duplicates, on=ROW_ID, how="left")
    rows = _with_bots(rows, bots).withColumn(c.REASONS, F.col(c.REASONS).bitwiseOR(F.col(_BOT)))
    outcome = F.when(F.col(c.REASONS) != 0, REJECTED).otherwise(F.coalesce(OUTCOME, F.lit(ACCEPTED)))
    all_bots = None if bots is None else bots.select(c.USER_ID, F.col(_BOT).alias(c.REASONS))
    return Judged(rows.withColumn(OUTCOME, outcome).drop(_BOT), codes, tally, found, all_bots)


def bot_codes(codes: Sequence[str], cleaning: CleaningSection) -> list[str]:
    """All reason codes: those of the rows themselves, and those of the limits on users that are set."""
    return [*codes, *[BOT_CODES[span] for span in cleaning.bots.limits()]]


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
    rows, n_rows = new, staged.tally.reasons[0]
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
    few = int(observed.get["n"]) <= BROADCAST_ROWS
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


def _after(before: Tally, new: DataFrame) -> tuple[Tally, dict[str, int]]:
    """The tally without duplicates and bots, and the duplicates by kind, from the rows that were looked at alone."""
    reasons, days, missing = Counter(before.reasons), Counter(before.days), Counter(before.missing)
    duplicates = dict.fromkeys((EXACT_DUPLICATE, KEY_DUPLICATE), 0)
    lost = (F.col(_BOT) != 0) | F.col(OUTCOME).isin(EXACT_DUPLICATE, KEY_DUPLICATE)
    groups = new.where(lost).groupBy(
        F.col(c.REASONS).alias("mask"),
        F.col(_BOT).alias("bot"),
        F.col(OUTCOME).alias("outcome"),
        F.to_date(c.EVENT_TIME).alias("day"),
        F.col(c.EVENT_TYPE).alias("type"),
        missing_mask().alias("missing"),
    )
    for row in groups.agg(F.count(F.lit(1)).alias("n")).collect():
        reasons[row["mask"]] -= row["n"]
        if row["mask"] == 0:
            days[row["day"], row["type"]] -= row["n"]
            missing.subtract(dict.fromkeys(missing_columns(row["missing"]), row["n"]))
        if row["bot"]:
            reasons[row["mask"] | row["bot"]] += row["n"]
        else:
            duplicates[row["outcome"]] += row["n"]
    return replace(before, reasons=+reasons, days=+days, missing=+missing), duplicates
