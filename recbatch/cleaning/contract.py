"""The columns an input had before, against which those of every new file are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark.sql import types as t

from recbatch.config.inputs import RawColumn
from recbatch.errors import InputContractError
from recbatch.tables.files import kind_of_type


@dataclass
class Contract:
    """Kinds (number, text, time, boolean, nested) of an input's columns by name, and notices of what is new.

    The first file sets them. A kind and not a type, because a writer of Parquet may store the same column as int32 in
    one file and as double in the next.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def check(self, file: str, found: Mapping[str, str], wanted: Mapping[str, RawColumn]) -> None:
        """Compare the columns of a file (or table) with those before, and remember new ones.

        Raises:
            InputContractError: a mapped column is missing, or one is of another kind than before.
        """
        for name, source in wanted.items():
            if source.column is not None and source.column not in found:
                raise InputContractError(
                    f"file '{file}' has no column '{source.column}', which the mapping names for '{name}'; "
                    f"it has {', '.join(found)}",
                    remedy="correct the mapping under 'input' or the file; nothing was written",
                )
        mapped = {source.column for source in wanted.values()}
        first = not self.kinds
        for name, kind in found.items():
            before = self.kinds.setdefault(name, kind if name in mapped or first else "")
            if name in mapped and before != kind:
                raise InputContractError(
                    f"column '{name}' of file '{file}' holds {kind}, and held {before} in earlier files",
                    remedy="correct the file, or, where the change is meant, run `recbatch clean --full-refresh`; "
                    "nothing was written",
                )
            if before == "":
                self.kinds[name] = kind
                self.notices.append(f"new column '{name}' of file '{file}' is ignored: no mapping names it")


def kinds_of(schema: t.StructType) -> dict[str, str]:
    """The kinds of a DataFrame's columns by name."""
    return {one.name: kind_of_type(one.dataType) for one in schema}
