"""The command line: one command a stage, all of them in one, and what people look at afterwards."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from recbatch import __version__, cli_generate, cli_tune
from recbatch.cli_options import ConfigFiles, Overrides
from recbatch.config import Config, load_config
from recbatch.errors import EXIT_DONE, EXIT_NOTHING_TO_DO, RecbatchError, UsageError
from recbatch.operations.doctor import check
from recbatch.report.figures import print_figures
from recbatch.report.findings import print_findings
from recbatch.report.progress import ConsoleProgress
from recbatch.report.quality import print_quality
from recbatch.report.reader import WarehouseReader
from recbatch.report.summary import print_releases, print_summary
from recbatch.report.table import show_table
from recbatch.report.user import show_user

if TYPE_CHECKING:
    from recbatch.context import StageContext

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From a raw behaviour log to published recommendation tables, as Spark jobs over Delta tables.",
    epilog="Exit codes: 0 done, 1 unexpected, 2 usage or configuration, 3 gate failed, 4 input contract broken, "
    "5 another run is at work, 99 nothing to do.",
)
# A log file has no width of its own; 80 columns would break the tables.
console = Console(width=None if sys.stdout.isatty() else 120)
errors = Console(stderr=True)

AsOf = Annotated[
    str | None,
    typer.Option("--as-of", help="Data time (UTC, ISO 8601): nothing later is read. Default: the latest event."),
]
RunId = Annotated[str | None, typer.Option("--run-id", help="Name of this run in the tables. Default: the time.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print the resolved configuration and what would run, for score also what it would take; write nothing.",
    ),
]


def _stage_command(names: Sequence[str]) -> Callable[..., None]:
    """The command that runs the stages called `names`; Spark is imported only when it is called."""

    def command(
        config: ConfigFiles,
        overrides: Overrides = None,
        as_of: AsOf = None,
        run_id: RunId = None,
        dry_run: DryRun = False,
    ) -> None:
        raise typer.Exit(run_stages(names, config, overrides or [], as_of=as_of, run_id=run_id, dry_run=dry_run))

    return command


def _clean_command(
    config: ConfigFiles,
    overrides: Overrides = None,
    run_id: RunId = None,
    dry_run: DryRun = False,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Clean everything again, from the files that are there.")
    ] = False,
    follow: Annotated[
        float | None,
        typer.Option(min=0.1, help="Look for new input every so many seconds, until stopped by SIGTERM or Ctrl-C."),
    ] = None,
) -> None:
    asked = (full_refresh, follow)
    raise typer.Exit(run_stages(["clean"], config, overrides or [], run_id=run_id, dry_run=dry_run, asked=asked))


def run_stages(
    names: Sequence[str],
    files: Sequence[Path],
    overrides: Sequence[str],
    *,
    as_of: str | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
    asked: tuple[bool, float | None] = (False, None),
) -> int:
    """Run the stages and return the exit code for success: done, or nothing to do."""
    from recbatch.context import Request, StageContext
    from recbatch.flow import stage_named
    from recbatch.runner import Runner
    from recbatch.session import build_session

    config = load_config(files, overrides)
    moment = _parse_as_of(as_of)
    stages = [stage_named(name) for name in names]
    with ConsoleProgress(console) as progress:
        progress.notify(f"recbatch {__version__}, pipeline '{config.pipeline}', warehouse {config.warehouse}")
        spark = build_session(config.spark, f"recbatch {config.pipeline} {' '.join(names)}")
        try:
            started = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}"
            request = Request(*asked)
            runner = Runner(spark, config, run_id=run_id or started, as_of=moment, progress=progress, request=request)
            if dry_run:
                _print_plan(config, [(stage.name, runner.is_current(stage)) for stage in stages])
                if list(names) == ["score"]:
                    _print_scoring_plan(StageContext.read_only(spark, config))
                return EXIT_DONE
            outcomes = runner.run(stages)
        finally:
            spark.stop()
    if all(outcome.result is None for outcome in outcomes):
        console.print("Nothing to do: the inputs, the options and the tables are those of the last run.")
        return EXIT_NOTHING_TO_DO
    if "clean" in names and "://" not in config.warehouse:
        print_quality(console, config.warehouse)
    if "publish" in names and "://" not in config.warehouse:
        print_summary(console, config.warehouse)
    return EXIT_DONE


def _parse_as_of(as_of: str | None) -> dt.datetime | None:
    if as_of is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(as_of)
    except ValueError as error:
        raise UsageError(f"--as-of '{as_of}' is not a time", remedy="use ISO 8601, for example 2017-12-01") from error
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def _print_plan(config: Config, stages: Sequence[tuple[str, bool]]) -> None:
    from omegaconf import OmegaConf

    console.print(OmegaConf.to_yaml(config.model_dump(mode="json")), markup=False, highlight=False)
    stale = False
    for name, current in stages:
        # A stage that would run gives the ones after it new inputs.
        stale = stale or not current
        console.print(f"{name:<10} {'would run' if stale else 'nothing to do'}")


def _print_scoring_plan(context: StageContext) -> None:
    from recbatch.stages.score import plan_scoring

    print_figures(console, "Scoring all users would take", plan_scoring(context).figures())


def _warehouse(files: Sequence[Path], overrides: Sequence[str]) -> WarehouseReader:
    return WarehouseReader(load_config(files, overrides).warehouse)


@app.command(
    epilog="Example: recbatch show recommendations --config conf/demo.yaml --user 1 "
    "(or any table: recbatch show items -c conf/demo.yaml --limit 5)"
)
def show(
    table: Annotated[str, typer.Argument(help="A table of the warehouse, for example recommendations.")],
    config: ConfigFiles,
    user: Annotated[str | None, typer.Option("--user", help="Only this user_id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 10,
    overrides: Overrides = None,
) -> None:
    """Print rows of a table, or one user's history and recommendations with titles and reasons. Needs no JVM."""
    reader = _warehouse(config, overrides or [])
    if table == "recommendations" and user is not None:
        show_user(console, reader, user, limit)
    else:
        show_table(console, reader, table, user, limit)


@app.command(epilog="Example: recbatch releases --config conf/demo.yaml")
def releases(config: ConfigFiles, overrides: Overrides = None) -> None:
    """List every release with its model, gates and table versions. Needs no JVM."""
    print_releases(console, load_config(config, overrides or []).warehouse)


@app.command(epilog="Example: recbatch doctor --config conf/demo.yaml")
def doctor(
    config: Annotated[list[Path] | None, typer.Option("--config", "-c", help="Also check this configuration.")] = None,
    overrides: Overrides = None,
) -> None:
    """Check Java, packages, memory, disk, the warehouse and the inputs, and say what to do about each."""
    findings = check(load_config(config, overrides or []) if config else None)
    print_findings(console, findings)
    raise typer.Exit(EXIT_DONE if all(finding.ok for finding in findings) else UsageError.exit_code)


app.command("generate", epilog=cli_generate.EXAMPLE)(cli_generate.command)
app.command("tune", epilog=cli_tune.EXAMPLE)(cli_tune.tune)
app.command("learning-curve", epilog=cli_tune.CURVE_EXAMPLE)(cli_tune.learning_curve)


def _add_stage_commands() -> None:
    from recbatch.flow import STAGES

    example = "Example: recbatch {name} --config conf/demo.yaml {options}"
    every = [stage.name for stage in STAGES]
    for name, summary, run in [
        ("run", f"Run all stages: {', '.join(every)}.", every),
        *[(stage.name, stage.summary, [stage.name]) for stage in STAGES],
    ]:
        options = {"score": "--dry-run", "clean": "--full-refresh"}.get(name, "--set scoring.k=50")
        command = _clean_command if name == "clean" else _stage_command(run)
        app.command(name, help=summary, epilog=example.format(name=name, options=options))(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its documented code; a mistake of the user's is one message."""
    _add_stage_commands()
    try:
        app(args=None if arguments is None else list(arguments))
    except RecbatchError as error:
        errors.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
