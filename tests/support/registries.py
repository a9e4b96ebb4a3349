"""A federation that has published models, those who may fetch them, and its registry in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from brainunet import home_folder
from brainunet.certificates import make_request, new_site_key, write_site_key
from brainunet.config import ModelConfig, PreprocessConfig
from brainunet.modelfile import SIGNED_AS, Ancestor, ModelCard, Publication, write_model
from brainunet.reader_pass import ReaderPass, new_token, seal_reader_pass, token_sha256
from brainunet.registry.access import Access, access_by
from brainunet.registry.keep import digest_of
from brainunet.signing import read_signing_key, sign_file
from brainunet.weights import Weights
from brainunet_server.federation import Folder, read_settings
from brainunet_server.registry import door as door_module
from brainunet_server.registry.book import Book
from brainunet_server.registry.limits import Limits
from brainunet_server.registry.serving import RegistryOptions, ports
from brainunet_server.registry.shelf import Shelf
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import ReaderRow, ReleaseRow
from brainunet_server.store.writer import StoreWriter
from tests.support.federation import done
from tests.support.store import NOON, RUN

NAME: Final = "Glioma Africa"
MEGABYTES: Final = 2


@dataclass
class Publisher:
    """The coordinator's folder, and what it gave to sites and readers, all below ``root``."""

    root: Path
    minute: int = 0
    folder: Folder = field(init=False)

    def __post_init__(self) -> None:
        self.folder = Folder(self.root / "fed")
        done("init", self.folder.path, "--name", NAME, "--host", "127.0.0.1")
        with self.store() as store:
            store.start_run(RUN)

    def store(self) -> StoreWriter:
        return StoreWriter(self.folder.store)

    def publish(self, name: str, megabytes: float = MEGABYTES, **card: object) -> ReleaseRow:
        """A model of random weights, each a minute younger than the one before."""
        self.minute += 1
        path = self.folder.published / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        published_at = NOON + timedelta(minutes=self.minute)
        facts = {"run": RUN.id, "round": self.minute, **card}
        told = write_model(path, random_weights(megabytes), model_card(name, published_at, **facts))
        sign_file(path, read_signing_key(self.folder.signing_key), SIGNED_AS)
        row = ReleaseRow(
            name=name,
            run_id=RUN.id,
            round=self.minute,
            file=str(path.relative_to(self.folder.path)),
            sha256=digest_of(path),
            n_bytes=path.stat().st_size,
            weights_sha256=told.weights_sha256,
            notes=f"notes of {name}",
            published_at=published_at,
        )
        with self.store() as store:
            store.add_release(row)
        return row

    def file_of(self, name: str) -> Path:
        return self.folder.published / f"{name}.safetensors"

    def withdraw(self, name: str, reason: str) -> None:
        with self.store() as store:
            store.withdraw_release(name, reason)

    def site(self, name: str) -> Path:
        """The home of a site that has joined: its key and its kit."""
        home = self.root / f"home-{name}"
        home.mkdir(mode=0o700)
        key = new_site_key()
        write_site_key(home / home_folder.KEY, key)
        request = self.root / f"{name}.request"
        request.write_bytes(make_request(key, name))
        done("enrol", self.folder.path, request, "-o", home / home_folder.KIT)
        return home

    def reader(self, name: str, *, days: float = 365, port: int = 8445) -> Path:
        """The pass of a reader; of one that has expired, with ``days`` below 0."""
        now, token = datetime.now(UTC).replace(microsecond=0), new_token()
        key = read_signing_key(self.folder.signing_key)
        made = ReaderPass(
            federation=NAME,
            reader=name,
            server=f"127.0.0.1:{port}",
            ca_certificate=self.folder.ca_certificate.read_text(),
            signing_key=key.public.text,
            token=token,
            issued_at=now - timedelta(days=1000),
            expires_at=now + timedelta(days=days),
        )
        path = self.root / f"{name}-{secrets.token_hex(2)}.pass.json"
        path.write_bytes(seal_reader_pass(made, key))
        row = ReaderRow(name=name, token_sha256=token_sha256(token), added_at=made.issued_at, expires_at=made.expires_at)
        with self.store() as store:
            store.add_reader(row)
        return path

    @contextmanager
    def served(self, limits: Limits = Limits()) -> Iterator[Served]:  # noqa: B008 - frozen
        """The registry on two free ports while the block runs."""
        config, options = read_settings(self.folder), RegistryOptions(None, "127.0.0.1", 0, 0)
        with self.store() as writer, StoreReader(self.folder.store) as reader:
            shelf = Shelf(self.folder.path, self.folder.published, reader.releases)
            ready, over = threading.Event(), threading.Event()
            bound: list[int] = []

            async def run() -> None:
                book = Book(writer, self.folder.audit)
                async with ports(self.folder, config, options, limits, shelf, reader.readers, book) as both:
                    bound.extend(both)
                    ready.set()
                    await asyncio.to_thread(over.wait)

            thread = threading.Thread(target=asyncio.run, args=(run(),), name="registry")
            thread.start()
            try:
                assert ready.wait(20)
                yield Served(self, *bound)
            finally:
                over.set()
                thread.join(20)


@dataclass(frozen=True)
class Served:
    """Where it listens, and who may call there."""

    publisher: Publisher
    site_port: int
    readers_port: int

    def by_site(self, home: Path, port: int | None = None) -> Access:
        return access_by(None, home, f"127.0.0.1:{port or self.site_port}")

    def by_pass(self, reader_pass: Path, port: int | None = None) -> Access:
        return access_by(reader_pass, reader_pass.parent, f"127.0.0.1:{port or self.readers_port}")


def random_weights(megabytes: float) -> Weights:
    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))
    return Weights.of({"layer.weight": rng.standard_normal(int(megabytes * 250_000), dtype=np.float32)})


def model_card(name: str, published_at: datetime = NOON, **facts: object) -> ModelCard:
    """The card of a release."""
    start = Ancestor(title="zeros", weights_sha256="00" * 32, trained_on="nothing", provenance="made for a test")
    told = {
        "title": f"model {name}",
        "release": Publication(name=name, federation=NAME, published_at=published_at, start=start, sites={}),
        "model": ModelConfig(preset="brainunet-nano"),
        "preprocess": PreprocessConfig(),
        "provenance": "made for a test",
        "trained_on": "nothing",
    }
    return ModelCard.model_validate(told | facts)


@pytest.fixture(scope="module")
def served(publisher: Publisher) -> Iterator[Served]:
    with publisher.served(Limits(wrong_tokens_per_minute=1000)) as served:
        yield served


@pytest.fixture
def no_slowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is refused is not made to wait, and what was looked up is looked up again."""
    monkeypatch.setattr(door_module, "SLOWED_S", 0.0)
    monkeypatch.setattr(door_module, "FRESH_S", 0.0)
