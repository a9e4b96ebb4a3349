"""The federation's folder and settings: what init writes means the defaults, and every mistake is named at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.config import PrivacyConfig
from brainunet.errors import ConfigError
from brainunet.settings import sha256_of
from brainunet_server.addresses import parse_host, parse_title, server_address
from brainunet_server.federation import FederationConfig, Folder, RoundsConfig, read_settings
from brainunet_server.template import settings_text

DEFAULTS = FederationConfig(name="Glioma Africa", host="fl.example.org", port=9443)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with nothing but the settings that init writes."""
    (tmp_path / "federation.toml").write_text(settings_text("Glioma Africa", "fl.example.org", 9443))
    return Folder(tmp_path)


def add(folder: Folder, text: str) -> None:
    with folder.settings_file.open("a") as file:
        file.write(text)


def test_the_settings_that_init_writes_are_the_defaults(folder: Folder) -> None:
    assert read_settings(folder) == DEFAULTS


def test_the_commented_lines_are_the_defaults_too(folder: Folder) -> None:
    text = folder.settings_file.read_text()
    lines = re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    assert lines.count("\n") == text.count("\n")
    folder.settings_file.write_text(lines)

    read = read_settings(folder)

    assert sha256_of(read) == sha256_of(DEFAULTS)
    parts: dict[str, set[str]] = {part: set() for part in ("rounds", "admission", "registry", "train")}
    for part, left_out in {**parts, "strategy": {"server_learning_rate"}}.items():
        assert all(
            f"{name} = " in lines for name in type(getattr(read, part)).model_fields.keys() - left_out - {"loss", "augment"}
        )


def test_privacy_is_off_in_a_new_federation_and_its_lines_are_the_defaults_once_it_is_on(folder: Folder) -> None:
    text = folder.settings_file.read_text()
    assert read_settings(folder).privacy is None
    folder.settings_file.write_text(re.sub(r"^#(?=   [a-z_]+ = )|^# (?=\[privacy\])", "", text, flags=re.MULTILINE))

    privacy = read_settings(folder).privacy

    assert privacy == PrivacyConfig(rounds=30)
    assert all(f"#   {name} = " in text for name in PrivacyConfig.model_fields)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("privacy.epsilon=0", "privacy.epsilon: must be more than 0"),
        ("privacy.epsilon=-1", "privacy.epsilon: must be more than 0"),
        ("privacy.delta=1", "privacy.delta: must be less than 1"),
        ("privacy.delta=0", "privacy.delta: must be more than 0"),
        ("privacy.epsilom=1", "did you mean epsilon?"),
        ("privacy.cases_per_step=0", "privacy.cases_per_step: must be at least 1"),
    ],
)
def test_privacy_that_protects_nothing_is_refused_with_the_setting(folder: Folder, setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_settings(folder, [setting])

    assert said in str(raised.value)


def test_batches_are_not_added_up_under_privacy(folder: Folder) -> None:
    with pytest.raises(ConfigError, match=r"raise privacy\.cases_per_step"):
        read_settings(folder, ["privacy.epsilon=8", "train.accumulate=2"])


def test_no_training_under_privacy_ends_on_whole_cases(folder: Folder) -> None:
    with pytest.raises(ConfigError, match=r"train\.whole_share goes without"):
        read_settings(folder, ["privacy.epsilon=8", "train.whole_share=0.2"])


def test_settings_follow_file_then_overrides(folder: Folder) -> None:
    text = folder.settings_file.read_text()
    folder.settings_file.write_text(text.replace("# count = 30", "count = 7").replace("# min_sites = 2", "min_sites = 3"))

    read = read_settings(folder, ["rounds.count=9", "train.steps=4"])

    assert (read.rounds.count, read.rounds.min_sites, read.train.steps) == (9, 3, 4)
    assert read.validation.min_cases == 3


def test_every_mistake_is_named_in_one_message(folder: Folder) -> None:
    overrides = [
        "rounds.min_sites=0",
        "rounds.gather_s=600",
        "rounds.deadline_s=60",
        "port=70000",
        "rounds.cuont=3",
        'listen="everywhere"',
        "admission.norm_factor=0.5",
    ]

    with pytest.raises(ConfigError) as error:
        read_settings(folder, overrides)

    for said in (
        "rounds.min_sites: ",
        "rounds.deadline_s: the deadline must be later than rounds.gather_s = 600",
        "port: ",
        "rounds.cuont is not a known setting (did you mean count?)",
        "listen: write an IP address",
        "admission.norm_factor: ",
    ):
        assert said in str(error.value)
    assert error.value.exit_code == 4


@pytest.mark.parametrize("port", [8444, 8445])
def test_a_server_at_a_port_of_the_registry_moves_the_registry_on(tmp_path: Path, port: int) -> None:
    (tmp_path / "federation.toml").write_text(settings_text("Glioma Africa", "fl.example.org", port))

    read = read_settings(Folder(tmp_path))

    assert (read.port, read.registry.port, read.registry.readers_port) == (port, port + 1, port + 2)


@pytest.mark.parametrize("override", ["registry.port=9443", "registry.readers_port=9443", "registry.readers_port=8444"])
def test_two_listeners_never_share_a_port(folder: Folder, override: str) -> None:
    with pytest.raises(ConfigError, match=r"registry: port = 9443, registry.port = .* each needs one of its own"):
        read_settings(folder, [override])


def test_a_round_whose_every_site_may_be_hostile_contradicts_itself(folder: Folder) -> None:
    with pytest.raises(ConfigError, match=r"malicious_sites = 2 could be every site of a round .* rounds.min_sites = 2"):
        read_settings(folder, ["strategy.malicious_sites=2"])

    assert read_settings(folder, ["strategy.malicious_sites=2", "rounds.min_sites=5"]).strategy.malicious_sites == 2


def test_settings_without_a_name_or_host_are_refused(folder: Folder) -> None:
    folder.settings_file.write_text("port = 8443\n")

    with pytest.raises(ConfigError, match=r"name: a federation's name is .*; host: write a DNS name"):
        read_settings(folder)


def test_the_network_is_no_setting_of_the_federation(folder: Folder) -> None:
    add(folder, '\n[model]\npreset = "brainunet"\n')

    with pytest.raises(ConfigError, match="model is not a known setting"):
        read_settings(folder)


def test_a_folder_without_a_federation_says_how_to_make_one(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=rf"no federation.toml in it.*flower-server init {path} --name NAME --host HOST"):
            read_settings(Folder(path))


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("FL.Example.ORG", "fl.example.org"),
        ("localhost", "localhost"),
        ("10.0.0.5", "10.0.0.5"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("2001:db8:0:0::1", "2001:db8::1"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
    ],
)
def test_a_host_is_a_name_or_an_address(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        "fl.example.org:8443",
        "https://fl.example.org",
        "300.1.1.1",
        "1.2.3",
        "-a.org",
        "a-.org",
        "a..b",
        "a.b.",
        "münchen.example",
        "a_b.org",
        "x" * 64,
        ".".join(["a" * 60] * 5),
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "fe80::1%eth0",
        "a\n",
    ],
)
def test_what_nobody_can_connect_to_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        parse_host(text)


@given(st.text(max_size=60))
def test_any_text_is_a_host_or_refused(text: str) -> None:
    try:
        host = parse_host(text)
    except ValueError:
        return
    assert parse_host(host) == host
    assert host.isascii()


@pytest.mark.parametrize("text", ["", " a", "a ", "a/b", "a\nb", "é", "a" * 49, "-a", "a\n"])
def test_a_name_that_would_not_fit_in_a_certificate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 48 letters"):
        parse_title(text)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,46}[A-Za-z0-9]", fullmatch=True), st.integers(1, 65535))
def test_any_name_and_port_survive_their_file(name: str, port: int) -> None:
    import tomllib

    told = tomllib.loads(settings_text(name, "fl.example.org", port))

    assert (told["name"], told["host"], told["port"]) == (name, "fl.example.org", port)
    assert parse_title(name) == name


def test_an_ipv6_address_is_written_in_brackets_beside_its_port() -> None:
    assert server_address("fl.example.org", 1) == "fl.example.org:1"
    assert server_address("::1", 8443) == "[::1]:8443"


def test_a_deadline_as_late_as_the_gathering_is_too_early() -> None:
    with pytest.raises(ValueError, match="later than"):
        RoundsConfig(gather_s=60, deadline_s=60)
    assert RoundsConfig(gather_s=60, deadline_s=61).deadline_s == 61
