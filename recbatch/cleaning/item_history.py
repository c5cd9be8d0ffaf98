"""What was known of every item, and since when: the versions that one delivery of the catalogue after another brought.

A version is a row of an item with its own `valid_from`. Deliveries are whole: what one lacks has been withdrawn.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recbatch.tables import columns as c
from recbatch.tables.schemas import ITEM_HISTORY

_KEY = (c.ITEM_ID, c.VALID_FROM)
_OLD, _NEW, _LATEST = "_old", "_new", "_latest"


def current_items(versions: DataFrame) -> DataFrame:
    """Of every item the version that became, or becomes, valid last."""
    newest = Window.partitionBy(c.ITEM_ID).orderBy(F.col(c.VALID_FROM).desc_nulls_last())
    return versions.withColumn("_place", F.row_number().over(newest)).where("_place = 1").drop("_place")


def extended_history(previous: DataFrame | None, delivered: DataFrame, known_from: dt.datetime | None) -> DataFrame:
    """The history after a delivery, as the table `item_history`.

    A version that differs from what was known is added, known from `known_from`; so is one that is missing now, as
    ended at that moment. Differences in filled cells, `source_file` and `run_id` are none. Attributes that either side
    does not have at all were mapped or unmapped since: they are taken over into the version that is known already.

    Args:
        previous: the history so far; None where there is none, and then the delivery counts as known always.
        delivered: all versions in the catalogue now, with the columns of `items`; one a (item_id, valid_from).
        known_from: the latest event of the log, UTC: nobody acted on the delivery before it. None where there is none,
            and then nothing was known before this delivery either.
    """
    names = [name for name in ITEM_HISTORY.schema.names if name != c.KNOWN_FROM]
    moment = F.lit(known_from).cast("timestamp")
    if previous is None or known_from is None:
        return delivered.select(*names, F.lit(None).cast("timestamp").alias(c.KNOWN_FROM))
    latest_first = Window.partitionBy(*_KEY).orderBy(F.col(c.KNOWN_FROM).desc_nulls_last())
    marked = previous.withColumn(_LATEST, F.row_number().over(latest_first) == 1)
    old = marked.where(_LATEST).select(F.struct(*names, c.KNOWN_FROM).alias(_OLD))
    new = delivered.select(F.struct(*names).alias(_NEW))
    same_key = [F.col(f"{_OLD}.{name}").eqNullSafe(F.col(f"{_NEW}.{name}")) for name in _KEY]
    pairs = old.join(new, on=same_key[0] & same_key[1], how="full")
    before, now = _attribute_names(previous), _attribute_names(delivered)
    versions = _versions(names, moment, shared=before & now, every=before | now)
    found = pairs.select(F.explode(versions).alias("_version")).select("_version.*")
    return found.unionByName(marked.where(~F.col(_LATEST)).select(*names, c.KNOWN_FROM))


def _versions(names: list[str], moment: Column, shared: Collection[str], every: Collection[str]) -> Column:
    """What is left, or made, of an old and a new version of one key, either of which may be null."""
    old, new = F.col(_OLD), F.col(_NEW)
    both = old.isNotNull() & new.isNotNull()
    unchanged = both & (_content(_OLD, shared) == _content(_NEW, shared))
    identical = unchanged & (_content(_OLD, every) == _content(_NEW, every))
    ended = new.isNull() & F.coalesce(old[c.VALID_TO] <= moment, F.lit(False))
    # Of two deliveries without an event between them the second alone counts.
    replaced = F.coalesce(old[c.KNOWN_FROM] >= moment, F.lit(False))
    kept = old.isNotNull() & (identical | ended | ~(unchanged | replaced))
    added = new.isNotNull() & ~identical
    known_from = F.when(unchanged, old[c.KNOWN_FROM]).otherwise(F.greatest(moment, old[c.KNOWN_FROM]))
    withdrawn = old.isNotNull() & new.isNull() & ~ended

    def version(of: Column, **changed: Column) -> Column:
        values = {name: of[name] for name in [*names, c.KNOWN_FROM] if name not in changed} | changed
        return F.struct(*[values[name].alias(name) for name in [*names, c.KNOWN_FROM]])

    return F.array_compact(
        F.array(
            F.when(kept, version(old)),
            F.when(added, version(new, known_from=known_from)),
            F.when(withdrawn, version(old, valid_to=moment, known_from=known_from)),
        )
    )


def _content(side: str, attributes: Collection[str]) -> Column:
    """What a delivery says of an item, as text; of its attributes only those named."""
    imputed, wanted = F.col(f"{side}.{c.IMPUTED}"), F.array(*map(F.lit, sorted(attributes))).cast("array<string>")

    def said(name: Column, _: Column) -> Column:
        return F.array_contains(wanted, name) & ~F.array_contains(imputed, name)

    maps = (c.CATEGORIES, c.NUMBERS, c.VECTORS)
    *entries, vectors = (F.array_sort(F.map_entries(F.map_filter(f"{side}.{part}", said))) for part in maps)
    # Hundreds of numbers take long to write and compare; of two vectors the chance of the same hash is 2 to the -64.
    entries.append(F.xxhash64(vectors))
    fixed = [F.col(f"{side}.{name}") for name in (c.TITLE, c.VALID_TO)]
    parts = [part.alias(f"part_{number}") for number, part in enumerate([*fixed, *entries])]
    return F.to_json(F.struct(*parts), {"ignoreNullFields": "false"})


def _attribute_names(rows: DataFrame) -> set[str]:
    """The attributes that any row has a value of."""
    keys = F.concat(*[F.map_keys(part) for part in (c.CATEGORIES, c.NUMBERS, c.VECTORS)])
    return {row[0] for row in rows.select(F.explode(keys)).distinct().collect()}
