"""What a federation is: the folder that the coordinator keeps, and the settings in it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from brainunet.config import PrivacyConfig, StrategyConfig, TrainConfig, ValidationConfig
from brainunet.errors import ConfigError
from brainunet.settings import Settings, load
from brainunet_server.addresses import parse_host, parse_title
from brainunet_server.admission import AdmissionConfig

Port = Annotated[int, Field(ge=1, le=65535)]


@dataclass(frozen=True)
class Folder:
    """Where everything of a federation lies; only :meth:`require` looks at the disk."""

    path: Path

    @property
    def settings_file(self) -> Path:
        return self.path / "federation.toml"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def ca_key(self) -> Path:
        return self.keys / "ca.key"

    @property
    def ca_certificate(self) -> Path:
        return self.keys / "ca.crt"

    @property
    def server_key(self) -> Path:
        return self.keys / "server.key"

    @property
    def server_certificate(self) -> Path:
        return self.keys / "server.crt"

    @property
    def signing_key(self) -> Path:
        return self.keys / "signing.key"

    @property
    def signing_public(self) -> Path:
        return self.keys / "signing.pub"

    @property
    def roster(self) -> Path:
        return self.path / "roster.json"

    @property
    def audit(self) -> Path:
        return self.path / "audit.jsonl"

    @property
    def start_model(self) -> Path:
        return self.path / "start.safetensors"

    @property
    def store(self) -> Path:
        return self.path / "store.sqlite"

    @property
    def flower(self) -> Path:
        """What belongs to Flower: its log, and the chunks that travel."""
        return self.path / "flower"

    @property
    def models(self) -> Path:
        return self.path / "models"

    @property
    def published(self) -> Path:
        """The models that were published, each in a file of its own with its signature beside it."""
        return self.path / "published"

    @property
    def replies(self) -> Path:
        return self.path / "replies"

    @property
    def run_file(self) -> Path:
        return self.path / "run.json"

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def wanted_file(self) -> Path:
        return self.path / "wanted"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    def require(self) -> None:
        """Pass if ``flower-server init`` has finished here.

        Raises:
            ConfigError: it has not.
        """
        if not self.settings_file.is_file():
            raise ConfigError(
                str(self.path),
                found="no federation.toml in it",
                expected="the folder of a federation",
                remedy=f"make one: flower-server init {self.path} --name NAME --host HOST",
            )


class RoundsConfig(Settings):
    """The rounds of a run and their patience.

    Attributes:
        count: rounds of training.
        min_sites: fewer connected sites, or fewer usable replies, make no round.
        gather_s: once ``min_sites`` are connected, how long to wait for more before a round begins.
        deadline_s: how long a round waits for replies, from its beginning.
        silence_s: a site from which nothing was heard for so long counts as gone, and no round waits for it.
        retry_s: pause before a round that could not be done is tried again.
        keep_every: besides the last two models and the best ones every so-many-th round's model stays; 0 keeps no others.
    """

    count: Annotated[int, Field(ge=1, le=10_000)] = 30
    min_sites: Annotated[int, Field(ge=1, le=1000)] = 2
    gather_s: Annotated[int, Field(ge=0, le=86_400)] = 60
    deadline_s: Annotated[int, Field(ge=1, le=2_592_000)] = 43_200
    silence_s: Annotated[int, Field(ge=10, le=86_400)] = 1800
    retry_s: Annotated[int, Field(ge=0, le=86_400)] = 60
    keep_every: Annotated[int, Field(ge=0, le=10_000)] = 0

    @field_validator("deadline_s")
    @classmethod
    def _outlasts_the_gathering(cls, deadline_s: int, info: ValidationInfo) -> int:
        gather_s = info.data.get("gather_s")
        if gather_s is not None and deadline_s <= gather_s:
            raise ValueError(f"the deadline must be later than rounds.gather_s = {gather_s}")
        return deadline_s


class RegistryConfig(Settings):
    """Where published models are fetched.

    Attributes:
        port: where sites come, with their certificates.
        readers_port: where readers come, with the token of their pass.
    """

    port: Port = 8444
    readers_port: Port = 8445


class FederationConfig(Settings):
    """``federation.toml``. The network and its preprocessing come from the start model's card, never from here.

    Attributes:
        host: name or address by which the sites reach the server; ``listen``: address of this machine it listens on.
        database: path or URL of the store; empty for ``store.sqlite`` in the folder.
        privacy: with it the sites train under differential privacy; None (no such part) without.
    """

    name: str = ""
    host: str = ""
    port: Port = 8443
    listen: str = "0.0.0.0"  # hospitals come from outside
    database: Annotated[str, Field(max_length=2000)] = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    rounds: RoundsConfig = RoundsConfig()
    train: TrainConfig = TrainConfig()
    validation: ValidationConfig = ValidationConfig(min_cases=3)
    strategy: StrategyConfig = StrategyConfig(max_site_share=0.5)  # else one site can own the average by a claim
    admission: AdmissionConfig = AdmissionConfig()
    registry: RegistryConfig = RegistryConfig()
    privacy: PrivacyConfig | None = None

    @field_validator("name")
    @classmethod
    def _is_a_title(cls, name: str) -> str:
        return parse_title(name)

    @field_validator("host")
    @classmethod
    def _can_be_reached(cls, host: str) -> str:
        return parse_host(host)

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, listen: str) -> str:
        try:
            return str(ipaddress.ip_address(listen))
        except ValueError:
            raise ValueError('write an IP address of this machine, or "0.0.0.0" for all of them') from None

    @field_validator("strategy")
    @classmethod
    def _leaves_someone_to_average(cls, strategy: StrategyConfig, info: ValidationInfo) -> StrategyConfig:
        rounds = info.data.get("rounds")
        if isinstance(rounds, RoundsConfig) and strategy.malicious_sites >= rounds.min_sites:
            raise ValueError(
                f"malicious_sites = {strategy.malicious_sites} could be every site of a round"
                f" that needs only rounds.min_sites = {rounds.min_sites}"
            )
        return strategy

    @field_validator("registry")
    @classmethod
    def _listens_elsewhere(cls, registry: RegistryConfig, info: ValidationInfo) -> RegistryConfig:
        ports = (info.data.get("port"), registry.port, registry.readers_port)
        if len(set(ports)) < len(ports):
            raise ValueError(
                f"port = {ports[0]}, registry.port = {ports[1]}, registry.readers_port = {ports[2]}: each needs one of its own"
            )
        return registry

    @model_validator(mode="after")
    def _privacy_counts_in_its_own_steps(self) -> FederationConfig:
        if self.privacy is not None and self.train.accumulate > 1:
            raise ValueError(
                "train.accumulate goes without [privacy]: raise privacy.cases_per_step, which takes no more memory"
            )
        if self.privacy is not None and self.train.whole_share:
            raise ValueError("train.whole_share goes without [privacy]: a private step takes patches of each case it draws")
        return self


@dataclass(frozen=True)
class ServeOptions:
    """What the command line of ``flower-server run`` says beside the settings; None leaves the setting as it is."""

    database: str | None = None
    port: int | None = None
    listen: str | None = None
    demo: bool = False
    new_run: bool = False
    overrides: tuple[str, ...] = ()


def read_settings(folder: Folder, overrides: Iterable[str] = ()) -> FederationConfig:
    """The settings of a federation, ``key.sub=value`` overrides last.

    Raises:
        ConfigError: no federation in the folder, or every problem of its settings in one message.
    """
    folder.require()
    return load(FederationConfig, folder.settings_file, overrides)
