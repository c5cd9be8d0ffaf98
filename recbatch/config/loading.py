"""Layering of configuration files and `key=value` overrides into one checked `Config`."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from recbatch.config.inputs import Missing, RawColumn
from recbatch.config.sections import Config
from recbatch.errors import UsageError

# Their keys exclude one another, so a layer states such an option whole: {sql: ...} does not join {column: ...} below.
_STATED_WHOLE = (RawColumn, Missing)
_OVERRIDE = re.compile(r"[^\s=]+=")
_REFERENCE = "conf/base.yaml lists every option with its unit and default"


def load_config(files: Sequence[str | Path], overrides: Sequence[str] = ()) -> Config:
    """Merge `files` in order, then `overrides` ("scoring.k=50"), over the defaults.

    A mapping is merged key by key with the one below it; a list, a raw column and a strategy for missing values replace
    it. `${oc.env:NAME}` and `${option}` are resolved after merging, and see what the files and overrides set.

    Raises:
        UsageError: a file is missing or is not YAML, a key is unknown, or a value is out of its range.
    """
    merged: Any = {}
    for layer in [*(_read(Path(file)) for file in files), _parse_overrides(overrides)]:
        merged = _laid_over(merged, layer, Config)
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(merged), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UsageError(
            f"option '{error.full_key}' cannot be resolved: {_one_line(error)}",
            remedy="set what it refers to, or write the value itself",
        ) from error
    try:
        return Config.model_validate(resolved)
    except ValidationError as error:
        origin = ", ".join(str(file) for file in files) or "the overrides"
        raise UsageError(
            f"configuration ({origin}): " + "; ".join(_explain(problem) for problem in error.errors()),
            remedy=_REFERENCE,
        ) from error


def _read(file: Path) -> Any:
    try:
        layer = OmegaConf.load(file)
    except FileNotFoundError as error:
        raise UsageError(f"configuration file '{file}' does not exist", remedy="give one with --config") from error
    except (YAMLError, OSError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise UsageError(f"configuration file '{file}' cannot be read: {error}", remedy=_REFERENCE) from error
    if not OmegaConf.is_dict(layer):
        raise UsageError(f"configuration file '{file}' holds no mapping of options", remedy=_REFERENCE)
    return OmegaConf.to_container(layer)


def _parse_overrides(overrides: Sequence[str]) -> Any:
    for override in overrides:
        if not _OVERRIDE.match(override):
            raise UsageError(f"override '{override}' is not of the form key=value", remedy="for example scoring.k=50")
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))
    except (OmegaConfBaseException, YAMLError) as error:
        raise UsageError(
            f"overrides {list(overrides)} cannot be read: {_one_line(error)}",
            remedy="a value is YAML: quote text that has brackets, quotes or a colon and a space",
        ) from error


def _laid_over(below: Any, above: Any, kind: Any) -> Any:
    """`above` with what only `below` sets, for an option of the type `kind`."""
    if not isinstance(below, dict) or not isinstance(above, dict) or kind in _STATED_WHOLE:
        return above
    return below | {key: _laid_over(below.get(key), value, _inner(kind, key)) for key, value in above.items()}


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _explain(problem: Any) -> str:
    parts, section = _locate(problem["loc"])
    name = ".".join(parts)
    if problem["type"] == "missing":
        return f"'{name}' must be set"
    if problem["type"] != "extra_forbidden":
        return f"'{name}': {problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r})"
    options = list(section.model_fields) if _is_section(section) else []
    close = difflib.get_close_matches(parts[-1], options, n=1)
    return f"unknown option '{name}'" + (f", did you mean '{'.'.join([*parts[:-1], close[0]])}'?" if close else "")


def _locate(location: Sequence[str | int]) -> tuple[list[str], Any]:
    """The parts of a location that are options, and the type that holds the last of them.

    Where a value may be of several types, pydantic adds the one that it tried.
    """
    parts: list[str] = []
    holder: Any = None
    kind: Any = Config
    for part in map(str, location):
        if not (_is_section(kind) or get_origin(kind) in (dict, list)):
            break
        parts.append(part)
        holder, kind = kind, _inner(kind, part)
    return parts, holder


def _inner(kind: Any, part: str) -> Any:
    """The type of the option, key or position `part` within the type `kind`; None where that has no parts."""
    if _is_section(kind):
        field = kind.model_fields.get(part)
        return None if field is None else _required(field.annotation)
    if get_origin(kind) in (dict, list):
        return get_args(kind)[-1]
    return None


def _required(kind: Any) -> Any:
    """X for `X | None`."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    present = [one for one in get_args(kind) if one is not type(None)]
    return present[0] if len(present) == 1 else None


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
