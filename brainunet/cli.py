"""``brainunet``: commands on one machine. One line here and one file in ``brainunet/commands`` for each."""

from __future__ import annotations

from typing import Annotated

import typer

from brainunet import __version__
from brainunet.commands import model
from brainunet.commands.augment_preview import augment_preview
from brainunet.commands.check import check
from brainunet.commands.crossval import crossval
from brainunet.commands.evaluate import evaluate
from brainunet.commands.import_official import import_official
from brainunet.commands.phantom import phantom
from brainunet.commands.predict import predict
from brainunet.commands.pull import pull
from brainunet.commands.train import train
from brainunet.terminal import main_of

app = typer.Typer(
    name="brainunet",
    help="Glioma segmentation with BrainUNet. Research only: not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(check)
app.command()(augment_preview)
app.command()(phantom)
app.command()(train)
app.command()(crossval)
app.command()(evaluate)
app.command()(predict)
app.command()(pull)
app.command("import")(import_official)
app.add_typer(model.app, name="model")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    del version, debug


main = main_of(app)
