"""Layering of configuration files and `key=value` overrides into one checked `Config`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from recbatch.config.sections import Config
from recbatch.errors import UsageError


def load_config(files: Sequence[str | Path], overrides: Sequence[str] = ()) -> Config:
    """Merge `files` in order, then `overrides` ("scoring.k=50"), over the defaults.

    Raises:
        UsageError: a file is missing or is not YAML, a key is unknown, or a value is out of its range.
    """
    layers = [_read(Path(file)) for file in files]
    layers.append(_parse_overrides(overrides))
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(*layers), resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(f"the configuration cannot be merged: {error}") from error
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        origin = ", ".join(str(file) for file in files) or "the overrides"
        raise UsageError(
            f"configuration ({origin}): " + "; ".join(_explain(problem) for problem in error.errors()),
            remedy="conf/base.yaml lists every option with its unit and default",
        ) from error


def _read(file: Path) -> Any:
    try:
        layer = OmegaConf.load(file)
    except FileNotFoundError as error:
        raise UsageError(f"configuration file '{file}' does not exist", remedy="give one with --config") from error
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"configuration file '{file}' cannot be read: {error}") from error
    if not OmegaConf.is_dict(layer):
        raise UsageError(f"configuration file '{file}' holds no mapping of options")
    return layer


def _parse_overrides(overrides: Sequence[str]) -> Any:
    for override in overrides:
        if "=" not in override.partition(" ")[0]:
            raise UsageError(f"override '{override}' is not of the form key=value", remedy="for example scoring.k=50")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except (OmegaConfBaseException, YAMLError) as error:
        raise UsageError(f"overrides {list(overrides)} cannot be read: {error}") from error


def _explain(problem: Any) -> str:
    location = tuple(str(part) for part in problem["loc"])
    name = ".".join(location)
    if problem["type"] != "extra_forbidden":
        return f"'{name}': {problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r})"
    close = difflib.get_close_matches(location[-1], _options_at(location[:-1]), n=1)
    return f"unknown option '{name}'" + (f", did you mean '{close[0]}'?" if close else "")


def _options_at(location: tuple[str, ...]) -> list[str]:
    section: Any = Config
    for part in location:
        field = section.model_fields.get(part) if _is_section(section) else None
        if field is None:
            return []
        # An optional section is written `Section | None`; its options are those of the section.
        candidates = [kind for kind in getattr(field.annotation, "__args__", (field.annotation,)) if _is_section(kind)]
        section = candidates[0] if candidates else None
    return list(section.model_fields) if _is_section(section) else []


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
