"""Progress of long work: a bar on a terminal, plain lines elsewhere, so that a scheduler's log stays readable."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from recbatch.context import Progress as StageProgress

_SECONDS_BETWEEN_LINES = 10.0


class ConsoleProgress:
    """Context manager that gives stages something to report to; `console` is where it prints."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._last_line = self._began
        self._task: TaskID | None = None
        self._name = ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> StageProgress:
        self._bar.start()
        return StageProgress(self._notify, self._advance)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def _notify(self, message: str) -> None:
        self._clear()
        self._console.print(
            f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {message}", highlight=False, soft_wrap=True
        )

    def _advance(self, task: str, done: int, total: int, detail: str) -> None:
        if not self._console.is_terminal:
            now = time.monotonic()
            if done == total or now - self._last_line > _SECONDS_BETWEEN_LINES:
                self._last_line = now
                self._console.print(f"{now - self._began:6.1f} s  {task}: {done}/{total} {detail}", highlight=False)
            return
        if self._task is None or task != self._name:
            self._clear()
            self._task, self._name = self._bar.add_task(task, total=total, detail=detail), task
        self._bar.update(self._task, completed=done, total=total, detail=detail)

    def _clear(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
