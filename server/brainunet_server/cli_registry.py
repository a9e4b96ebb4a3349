"""``flower-server registry``: give published models to sites and readers."""

from __future__ import annotations

from typing import Annotated

import typer

from brainunet_server.cli_members import Debug, Directory


def registry(
    directory: Directory,
    listen: Annotated[str | None, typer.Option(help="address of this machine to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port for sites; 0 is a free one", min=0, max=65535)] = None,
    readers_port: Annotated[int | None, typer.Option(help="TCP port for readers; 0 is a free one", min=0, max=65535)] = None,
    database: Annotated[str | None, typer.Option(help="path or URL of the store, as given to run")] = None,
    debug: Debug = False,
) -> None:
    """Serve the models that were published: to sites by their certificates, to readers by their passes."""
    del debug
    from brainunet.registry.agreed import prepare_grpc

    prepare_grpc()
    from brainunet_server.federation import Folder
    from brainunet_server.registry.serving import RegistryOptions, serve_registry

    serve_registry(Folder(directory), RegistryOptions(database, listen, port, readers_port))
