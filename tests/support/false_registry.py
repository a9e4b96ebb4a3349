"""A registry that says what a test wants it to say: real TLS and gRPC, and any authority."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key

from brainunet.certificates import key_in_pem
from brainunet.modelfile import SIGNED_AS, read_model, write_model
from brainunet.moments import iso
from brainunet.registry.access import Access
from brainunet.registry.agreed import CHUNK_BYTES
from brainunet.registry.client import Registry
from brainunet.registry.fetch import Part, fetch, held
from brainunet.registry.keep import keep
from brainunet.registry.registry_pb2 import Chunk, Description, ListReply, Release
from brainunet.registry.registry_pb2_grpc import RegistryServicer, add_RegistryServicer_to_server
from brainunet.signing import SigningKey, sign_file
from tests.support.authority import pem_of
from tests.support.health import Federation, now
from tests.support.registries import model_card, random_weights
from tests.support.store import NOON


@dataclass
class FalseRegistry(RegistryServicer):  # type: ignore[misc] # generated
    """Has one release, whose messages and bytes a test may change.

    Attributes:
        content, signature: what is sent.
        release: what is told of it.
        listed: what the list has in its place.
        changes: makes other chunks of the good ones.
        before: is called with the context of each question.
    """

    content: bytes
    signature: str
    release: Release
    changes: Callable[[Iterator[Chunk]], Iterator[Chunk]] = lambda chunks: chunks
    before: Callable[[Any], None] = lambda context: None
    asked: list[int] = field(default_factory=list)
    listed: list[Release] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path, key: SigningKey, megabytes: float = 2, name: str = "v1") -> FalseRegistry:
        """A good one, of a model in ``folder``."""
        path = folder / "good.safetensors"
        write_model(path, random_weights(megabytes), model_card(name, run="glioma-1", round=3))
        signature = sign_file(path, key, SIGNED_AS).read_text()
        content, (_, card) = path.read_bytes(), read_model(path)
        release = Release(
            name=name,
            run="glioma-1",
            round=3,
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            weights_sha256=card.weights_sha256,
            published_at=iso(NOON),
        )
        return cls(content, signature, release)

    def List(self, request: Any, context: Any) -> ListReply:  # noqa: N802 - gRPC\'s spelling
        self.before(context)
        return ListReply(releases=self.listed or [self.release])

    def Describe(self, request: Any, context: Any) -> Description:  # noqa: N802 - gRPC\'s spelling
        self.before(context)
        return Description(release=self.release, signature=self.signature)

    def Download(self, request: Any, context: Any) -> Iterator[Chunk]:  # noqa: N802 - gRPC\'s spelling
        self.before(context)
        self.asked.append(request.offset)
        starts = range(request.offset, len(self.content), CHUNK_BYTES)
        return self.changes(Chunk(offset=start, data=self.content[start : start + CHUNK_BYTES]) for start in starts)


@contextmanager
def standing(
    registry: RegistryServicer,
    federation: Federation,
    *,
    hosts: tuple[str, ...] = ("127.0.0.1",),
    start: float = -1,
    end: float = 365,
) -> Iterator[int]:
    """It listens while the block runs, with a certificate of the federation for ``hosts``; gives its port."""
    key = generate_private_key(SECP384R1())
    dates = {"not_before": now() + timedelta(days=start), "not_after": now() + timedelta(days=end)}
    certificate = federation.authority.issue(key.public_key(), "server", hosts=hosts, **dates)  # type: ignore[arg-type]
    credentials = grpc.ssl_server_credentials([(key_in_pem(key), pem_of(certificate).encode())])
    server = grpc.server(ThreadPoolExecutor(4))
    add_RegistryServicer_to_server(registry, server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


def access_to(port: int, federation: Federation) -> Access:
    """That of a reader, whose token such a registry does not look at."""
    return Access(
        server=f"127.0.0.1:{port}",
        federation="glioma",
        ca_certificate=federation.authority.ca_pem,
        signing_key=federation.signing_key.public,
        who="reader jane",
        token="A" * 43,
    )


def pull_from(port: int, federation: Federation, target: Path, *, patience_s: float = 0.0) -> Path:
    """The release "v1", under a name."""
    access = access_to(port, federation)
    with Registry(access) as registry:
        described = registry.describe("v1")
    with held(Part(target)) as descriptor:
        fetch(
            lambda: Registry(access), described.release, Part(target), descriptor, patience_s=patience_s, sleep=lambda s: None
        )
        return keep(Part(target), described, access.signing_key).file


@pytest.fixture
def registry(tmp_path: Path, federation: Federation) -> FalseRegistry:
    return FalseRegistry.of(tmp_path, federation.signing_key)
