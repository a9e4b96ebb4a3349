"""A question to a registry is asked again where the line breaks: in words, over a new connection, and not for ever."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest

from brainunet import home_folder
from brainunet.errors import FederationError
from brainunet.registry.client import Listing, Registry
from brainunet.registry.patience import FIRST_ANSWER_S, PatientRegistry
from brainunet.registry.records import Described, Release
from brainunet.registry.troubles import Passing
from tests.support.false_registry import FalseRegistry, access_to, standing
from tests.support.health import Federation, no_proxy
from tests.support.running import free_port
from tests.support.simulation import run

RELEASE = Release(
    name="v1",
    run="glioma-1",
    round=1,
    size_bytes=10,
    sha256="ab" * 32,
    weights_sha256="cd" * 32,
    published_at=datetime(2026, 3, 1, tzinfo=UTC),
)


class Flaky:
    """Registries whose line breaks as often as ``breaks`` says, question by question, counting all connections together."""

    def __init__(self, *breaks: int, wait_s: float = 0.0) -> None:
        self.breaks, self.wait_s = list(breaks), wait_s
        self.connections, self.open, self.now = 0, 0, 0.0
        self.said: list[str] = []

    def connect(self) -> Flaky:
        self.connections += 1
        self.open += 1
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: object) -> None:
        self.open -= 1

    def _answer(self) -> None:
        if self.breaks and self.breaks[0]:
            self.breaks[0] -= 1
            trouble = Passing("line", found="the line was cut")
            trouble.wait_s = self.wait_s
            raise trouble
        if self.breaks:
            self.breaks.pop(0)

    def listing(self) -> Listing:
        self._answer()
        return Listing("glioma", (RELEASE,))

    def describe(self, name: str) -> Described:
        self._answer()
        return Described(release=RELEASE, signature="s")

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def asked(self, patience_s: float) -> PatientRegistry:
        words = lambda trouble, wait_s: self.said.append(f"{trouble.found} {wait_s:g}")  # noqa: E731
        return PatientRegistry(self.connect, patience_s, words, self.sleep, lambda: self.now)


def test_both_questions_are_asked_until_the_line_holds_and_every_connection_is_closed() -> None:
    line = Flaky(3, 2)
    with line.asked(600) as registry:
        assert registry.listing().releases == (RELEASE,)
        assert registry.describe("v1").release == RELEASE
    assert line.said == [f"the line was cut {pause}" for pause in (1, 2, 4, 1, 2)]
    assert (line.connections, line.open) == (6, 0)


def test_a_registry_that_never_answered_is_tried_for_a_minute_and_one_that_did_for_as_long_as_was_said() -> None:
    line = Flaky(1000)
    with line.asked(600) as registry, pytest.raises(FederationError, match="the line was cut"):
        registry.listing()
    assert line.now <= FIRST_ANSWER_S

    line = Flaky(0, 1000)
    with line.asked(600) as registry:
        registry.listing()
        with pytest.raises(FederationError):
            registry.describe("v1")
    assert 500 < line.now <= 600


def test_no_patience_asks_once() -> None:
    line = Flaky(1)
    with line.asked(0) as registry, pytest.raises(Passing):
        registry.listing()
    assert (line.said, line.now) == ([], 0)


def test_a_registry_that_asks_to_wait_is_waited_for_as_long_as_it_says() -> None:
    line = Flaky(1, wait_s=17)
    with line.asked(600) as registry:
        registry.listing()
    assert line.now == 17


def test_what_waiting_does_not_mend_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxy(monkeypatch)
    federation = Federation()
    stranger = Federation()
    with (
        standing(FalseRegistry.of(tmp_path, federation.signing_key), stranger) as port,
        PatientRegistry(lambda: Registry(access_to(port, federation)), 600, sleep=lambda s: pytest.fail("slept")) as registry,
        pytest.raises(FederationError, match="not issued by this federation's authority"),
    ):
        registry.listing()


def test_a_line_that_comes_back_is_all_that_a_list_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxy(monkeypatch)
    federation = Federation()
    good, ports = FalseRegistry.of(tmp_path, federation.signing_key), [free_port()]
    with standing(good, federation) as port:

        def mend(seconds: float) -> None:
            ports.append(port)

        with PatientRegistry(lambda: Registry(access_to(ports[-1], federation)), 600, sleep=mend) as registry:
            assert [release.name for release in registry.listing().releases] == ["v1"]


def test_the_command_says_that_it_tries_again_and_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brainunet.cli import main as brainunet
    from tests.support.registries import Publisher

    no_proxy(monkeypatch)
    publisher = Publisher(tmp_path)
    reader_pass = publisher.reader("jane", port=free_port())

    ended = run(brainunet, "pull", "--kit", reader_pass, "--home", tmp_path / "home", "--list", "--patience", "1.5")

    assert ended.code == 6
    first, last = ended.err.splitlines()
    assert first == "it does not answer (connection refused); trying again in 1 s"
    assert last.startswith("error: 127.0.0.1:")
    assert not (tmp_path / "home" / home_folder.MODELS).exists()
