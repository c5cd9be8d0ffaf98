"""How the inner loops that neither torch nor numpy has are compiled: by numba, on first use, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` as machine code that releases the interpreter's lock; IEEE arithmetic in the order that is written.

    The code is cached beside the module, or in the user's cache folder where the package is read-only or a zip.
    """
    return _compile(function, {})


def compiled_fused(function: Function) -> Function:
    """As `compiled`, but products and sums may be fused where the machine can: one rounding in the place of two.

    For bounds that allow for either; what a user sees must not depend on the machine.
    """
    return _compile(function, {"fastmath": {"contract"}})


def _compile(function: Function, options: dict[str, Any]) -> Function:
    try:
        machine_code: Function = njit(function, nogil=True, cache=True, **options)
    except RuntimeError:  # numba finds no folder it may write to, as in a container without a home: compile each time
        machine_code = njit(function, nogil=True, **options)
    return machine_code
