"""Every error a user can cause, with the exit code of the process that meets it.

A message says what is wrong, where, with which value, and what to do about it. The command line prints the message
alone; a traceback is for errors that are ours.
"""

EXIT_DONE = 0
EXIT_UNEXPECTED = 1
EXIT_NOTHING_TO_DO = 99


class RecbatchError(Exception):
    """Base of the errors that are reported as one message; `exit_code` is what the process ends with."""

    exit_code = EXIT_UNEXPECTED

    def __init__(self, what: str, *, remedy: str = "") -> None:
        super().__init__(what if not remedy else f"{what}\n  -> {remedy}")
        self.what = what
        self.remedy = remedy


class UsageError(RecbatchError):
    """An option, a configuration key or the environment (Java, paths) is not usable."""

    exit_code = 2


class GateFailedError(RecbatchError):
    """A figure of the staged release missed its limit; nothing was published."""

    exit_code = 3


class InputContractError(RecbatchError):
    """An input is missing, unreadable or not of the declared shape; nothing was written."""

    exit_code = 4


class ModelError(RecbatchError):
    """A model artifact does not load, does not fit its tables, or produced values that are not finite."""

    exit_code = 4


class LockedError(RecbatchError):
    """Another run writes the same tables; nothing was written."""

    exit_code = 5
