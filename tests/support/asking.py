"""Questions to a registry, as our own client asks them and as it never would."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from brainunet.errors import FederationError
from brainunet.registry.access import Access
from brainunet.registry.client import Registry
from brainunet.registry.fetch import Part, fetch, held
from brainunet.registry.keep import keep
from brainunet.registry.registry_pb2_grpc import RegistryStub
from brainunet_server.store.reader import StoreReader
from tests.support.registries import Publisher


def names(access: Access) -> list[str]:
    with Registry(access) as registry:
        return [release.name for release in registry.listing().releases]


def refusal(access: Access) -> str:
    with pytest.raises(FederationError) as refused:
        names(access)
    return str(refused.value)


def pulled(access: Access, name: str, target: Path) -> Path:
    with Registry(access) as registry:
        described = registry.describe(name)
    with held(Part(target)) as descriptor:
        fetch(lambda: Registry(access), described.release, Part(target), descriptor, patience_s=0)
        return keep(Part(target), described, access.signing_key).file


def downloads(publisher: Publisher, who: str) -> Sequence[tuple[str, str, int, bool]]:
    """What the store says once it says something: a download is written down when its last byte has left."""
    for _ in range(100):
        with StoreReader(publisher.folder.store) as store:
            found = [(row.release, row.kind, row.n_bytes, row.whole) for row in store.downloads() if row.who == who]
        if found:
            return found
        time.sleep(0.05)
    return []


def stub(access: Access) -> tuple[grpc.Channel, RegistryStub]:
    """The bare protocol, for questions that our own client never asks."""
    credentials = grpc.ssl_channel_credentials(
        access.ca_certificate.encode(), access.key or None, access.certificate.encode() or None
    )
    channel = grpc.secure_channel(access.server, credentials)
    return channel, RegistryStub(channel)


def bearer(access: Access) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {access.token}"),)
