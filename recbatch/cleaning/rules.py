"""Rejection rules as data: a reason code and the condition under which it applies, all evaluated in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recbatch.cleaning.raw import CORRUPT
from recbatch.config.sections import Rule
from recbatch.errors import UsageError

MALFORMED = "malformed_record"
SEPARATOR = ","


def reasons(conditions: Mapping[str, Column]) -> Column:
    """The codes of all conditions that hold, comma-separated; a condition that is null does not hold.

    A malformed record has no values to judge, so that its only reason is to be malformed. Text and not an array: the
    array functions that skip nulls are interpreted for every row, and would interpret the parsing below them as well.
    """
    codes = [F.when(condition, F.lit(code)) for code, condition in conditions.items()]
    return F.when(F.col(CORRUPT).isNotNull(), F.lit(MALFORMED)).otherwise(F.concat_ws(SEPARATOR, *codes))


def as_array(codes: Column) -> Column:
    """Comma-separated codes as the array that the rejected tables hold."""
    return F.split(codes, SEPARATOR)


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
