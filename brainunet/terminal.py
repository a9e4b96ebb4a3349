"""What every command line of the project does alike: where output goes, how errors are said, which exit code ends it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from brainunet.errors import BrainUNetError

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
            _say(f"error: {error}")
            sys.exit(error.exit_code)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            _say("interrupted")
            sys.exit(INTERRUPTED)

    return main


def progress_bar(*, hidden: bool = False) -> Progress:
    """A progress bar on stderr; none where stderr is not a terminal, or where none is wanted."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), disable=hidden or not sys.stderr.isatty())


def _say(text: str) -> None:
    # plain print semantics: a path in a message must not be broken at the terminal's width or read as markup
    sys.stderr.write(text + "\n")
