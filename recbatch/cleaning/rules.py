"""Rejection rules as data: a reason code and the condition under which it applies, all evaluated in one pass.

While rows are judged their reasons are one integer, a bit a code: that costs an addition a rule and row, and the texts
are only made of the rows that are rejected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recbatch.cleaning.raw import CORRUPT
from recbatch.config.cleaning import Rule
from recbatch.errors import UsageError

MALFORMED = "malformed_record"
# Bits of a long without its sign.
_MOST_CODES = 63


def all_codes(conditions: Mapping[str, Column]) -> list[str]:
    """Every reason code in the order of its bit.

    Raises:
        UsageError: there are more than a mask has bits.
    """
    codes = [MALFORMED, *conditions]
    if len(codes) > _MOST_CODES:
        raise UsageError(
            f"there are {len(codes)} reasons for a rejection, at most {_MOST_CODES} can be told apart",
            remedy="give several of cleaning.rules the same reason, or join their conditions with OR",
        )
    return codes


def mask(conditions: Mapping[str, Column]) -> Column:
    """The bits of all conditions that hold, as in `all_codes`; a condition that is null does not hold.

    A malformed record has no values to judge, so that its only reason is to be malformed.
    """
    none, malformed = F.lit(0).cast("long"), F.lit(1).cast("long")
    bits = [F.when(one, _bit(bit)).otherwise(none) for bit, one in enumerate(conditions.values(), start=1)]
    judged = reduce(Column.bitwiseOR, bits, none)
    return F.when(F.col(CORRUPT).isNotNull(), malformed).otherwise(judged)


def has(mask: Column, bit: int) -> Column:
    """Whether one bit of a mask is set."""
    return mask.bitwiseAND(_bit(bit)) != 0


def _bit(bit: int) -> Column:
    return F.lit(1 << bit).cast("long")


def as_array(mask: Column, codes: Sequence[str]) -> Column:
    """A mask as the array of codes that the rejected tables hold."""
    return F.array_compact(F.array(*[F.when(has(mask, bit), F.lit(code)) for bit, code in enumerate(codes)]))


def configured(rules: Sequence[Rule], frame: DataFrame) -> dict[str, Column]:
    """The rules of the configuration as conditions on `frame`, by reason; rules of one reason are alternatives.

    Raises:
        UsageError: a condition is not SQL over the columns of the table.
    """
    conditions: dict[str, Column] = {}
    for rule in rules:
        try:
            condition = F.expr(rule.when)
            # A filter accepts what a rule may be: a condition on the row alone, without aggregates and windows.
            frame.where(condition)
        except PySparkException as error:
            raise UsageError(
                f"cleaning rule '{rule.reason}': '{rule.when}' is not a condition on the columns of the table: "
                f"{str(error).strip().splitlines()[0]}",
                remedy=f"use SQL over {', '.join(frame.columns)}",
            ) from error
        condition = F.coalesce(condition, F.lit(False))
        conditions[rule.reason] = conditions[rule.reason] | condition if rule.reason in conditions else condition
    return conditions
