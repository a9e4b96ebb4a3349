"""What every command line of the project does alike: where output goes, how errors are said, which exit code ends it."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from brainunet.complaints import visible
from brainunet.errors import BrainUNetError, UsageError

INTERRUPTED = 130


def main_of(app: typer.Typer) -> Callable[[], None]:
    """The entry point of a command line: one sentence and the right exit code for every error; a traceback with --debug."""

    def main() -> None:
        try:
            code = typer.main.get_command(app).main(standalone_mode=False)
            if code == INTERRUPTED:  # what Typer makes of a KeyboardInterrupt
                raise KeyboardInterrupt
            sys.exit(code if isinstance(code, int) else 0)
        except BrainUNetError as error:
            if "--debug" in sys.argv:
                raise
            tell(f"error: {error}")
            sys.exit(error.exit_code)
        except click.ClickException as error:
            shown = io.StringIO()
            error.show(shown)
            sys.stderr.write("".join(visible(line) + "\n" for line in shown.getvalue().splitlines()))
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            tell("interrupted")
            sys.exit(INTERRUPTED)

    return main


def require_resume_alone(context: click.Context, what: str, beside: Collection[str] = ()) -> None:
    """Refuse options that came with ``--resume``, which goes on with those that are kept: it could only pass them over.

    Args:
        what: is gone on with: "a training".
        beside: parameters that change nothing of the result, apart from ``--out``, ``--json``, ``--quiet`` and ``--debug``.

    Raises:
        UsageError: naming each of them.
    """
    goes_along = {"out", "resume", "as_json", "quiet", "debug", *beside}
    given = click.core.ParameterSource.COMMANDLINE
    extra = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in goes_along and context.get_parameter_source(str(parameter.name)) == given
    ]
    if extra:
        raise UsageError(
            "--resume",
            found=f"it came with {', '.join(extra)}",
            expected="only --out",
            remedy=f"{what} goes on with the settings it was begun with",
        )


@contextmanager
def telling_how_to_go_on(command: str, out: Path) -> Iterator[None]:
    """Ctrl-C in the block ends with the line that takes the work up again."""
    try:
        yield
    except KeyboardInterrupt:
        tell(f"stopped; go on with: {command} --resume --out {shlex.quote(str(out))}")
        raise


def progress_bar(*, hidden: bool = False) -> Progress:
    """A progress bar on stderr; none where stderr is not a terminal, or where none is wanted."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), disable=hidden or not sys.stderr.isatty())


def download_bar(*, hidden: bool = False) -> Progress:
    """A progress bar of bytes on stderr; none where stderr is not a terminal, or where none is wanted."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), disable=hidden or not sys.stderr.isatty())


def tell(text: str) -> None:
    """A line for people on stderr, in which names of files and words of other machines can do nothing to their screen."""
    # plain print semantics: a path in a message must not be broken at the terminal's width or read as markup
    sys.stderr.write(visible(text) + "\n")
