"""``flower-server init``: a whole federation or none, and never a second one over the first."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from brainunet.modelfile import read_model, write_model
from brainunet.signing import PublicKey, read_signing_key, verify_file
from brainunet.starter import STARTER
from brainunet_server.authority import hosts_of, read_authority, read_certificate_file
from brainunet_server.federation import Folder, read_settings
from tests.support.federation import (
    HOST,
    NAME,
    content,
    init,
    kinds,
    refused,
    serve,
    told,
)
from tests.support.rights import largest_file, open_folder, ordinary_rights


def test_init_makes_keys_settings_and_a_signed_start_model_and_says_what_comes_next(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "new" / "fed")

    said = init(folder.path, "--host", "10.0.0.5", "--port", "9443", "--model", STARTER)

    assert f"next: flower-server enrol {folder.path} REQUEST -o KIT" in said
    assert (read_settings(folder).name, read_settings(folder).host, read_settings(folder).port) == (NAME, HOST, 9443)
    assert hosts_of(read_certificate_file(folder.server_certificate)) == (HOST, "10.0.0.5", "localhost", "127.0.0.1")
    read_authority(folder.ca_key, folder.ca_certificate)
    assert folder.start_model.read_bytes() == STARTER.read_bytes()
    verify_file(folder.start_model, PublicKey.from_text(folder.signing_public.read_text().strip()), "model")
    assert kinds(folder.path) == ["federation-created", "start-model-set"]
    assert {path.name for path in folder.path.iterdir() if path.name != ".roster.json.lock"} == {
        *("audit.jsonl", "federation.toml", "keys", "roster.json", "start.safetensors", "start.safetensors.sig")
    }


def test_private_keys_are_for_their_owner_alone(founded: Path) -> None:
    folder = Folder(founded)

    for path in (folder.ca_key, folder.server_key, folder.signing_key, folder.audit):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(folder.keys.stat().st_mode) == 0o700


def test_a_second_init_changes_nothing_and_says_what_it_kept(fed: Path) -> None:
    before = content(fed)

    again = told("init", fed, "--name", NAME, "--host", HOST, "--model", STARTER)
    said = init(fed, "--host", "elsewhere.org", "--port", "1234")

    assert (again["made"], again["kept"]) == ([], ["keys", "roster.json", "start.safetensors", "federation.toml"])
    assert "kept as they were: keys, roster.json, start.safetensors, federation.toml" in said
    assert f"host and port stay {HOST} and 8443" in said
    assert content(fed) == before


def test_a_start_model_can_be_set_later_and_changed(tmp_path: Path) -> None:
    folder, other = Folder(tmp_path / "fed"), tmp_path / "other.safetensors"
    assert "--model MODEL" in init(folder.path)
    weights, card = read_model(STARTER)
    write_model(other, weights, card.model_copy(update={"title": "another"}))

    for model in (STARTER, other, other):
        init(folder.path, "--model", model)
        assert folder.start_model.read_bytes() == model.read_bytes()
        verify_file(folder.start_model, read_signing_key(folder.signing_key).public, "model")

    assert kinds(folder.path) == ["federation-created", "start-model-set", "start-model-set"]


def test_another_federation_in_the_folder_is_left_alone(fed: Path) -> None:
    before = content(fed)

    assert "choose another folder" in refused(2, "init", fed, "--name", "Other", "--host", HOST).lower()

    assert content(fed) == before


def test_an_init_that_was_interrupted_is_repeated_with_the_keys_it_had_made(fed: Path, founded: Path) -> None:
    for name in ("federation.toml", "start.safetensors", "start.safetensors.sig", "roster.json"):
        (fed / name).unlink()
    left = fed / ".flower-server-init-0a1b2c"
    left.mkdir()
    (left / "ca.key").touch()

    assert "the federation Glioma Africa" in refused(2, "init", fed, "--name", "Other", "--host", HOST)
    init(fed, "--model", STARTER)

    assert not left.exists()
    assert content(fed / "keys") == content(founded / "keys")
    assert read_settings(Folder(fed)).name == NAME
    assert kinds(fed)[0] == "federation-created"
    assert kinds(fed).count("federation-created") == 1


@pytest.mark.parametrize("lost", ["keys", "keys/ca.key", "keys/signing.pub", "roster.json"])
def test_init_never_makes_anew_what_a_federation_has_lost(fed: Path, lost: str) -> None:
    shutil.rmtree(fed / lost) if (fed / lost).is_dir() else (fed / lost).unlink()
    before = content(fed)

    assert "backup" in refused(4, "init", fed, "--name", NAME, "--host", HOST)

    assert content(fed) == before


def test_a_model_of_a_network_that_nobody_knows_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    weights, card = read_model(STARTER)
    odd = card.model.model_copy(update={"preset": "brainunet-nan"})
    write_model(tmp_path / "odd.safetensors", weights, card.model_copy(update={"model": odd}))

    said = refused(4, "init", tmp_path / "fed", "--name", NAME, "--host", HOST, "--model", tmp_path / "odd.safetensors")

    assert "the preset brainunet-nan is not known (did you mean brainunet-nano?)" in said
    assert not (tmp_path / "fed").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--name", "a/b", "--host", HOST), "--name: 'a/b'. A federation's name is"),
        (("--name", NAME, "--host", "x y"), "--host: 'x y'. Write a DNS name"),
        (("--name", NAME, "--host", HOST, "--host", "300.1.1.1"), "--host: '300.1.1.1'"),
    ],
)
def test_a_name_or_host_that_is_none_makes_nothing(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(2, "init", tmp_path / "fed", *arguments)
    assert not (tmp_path / "fed").exists()


@pytest.mark.parametrize("port", ["0", "65536", "https"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    assert serve("init", tmp_path / "fed", "--name", NAME, "--host", HOST, "--port", port).code == 2
    assert not (tmp_path / "fed").exists()


def test_a_place_where_no_folder_can_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(2, "init", tmp_path / "file", "--name", NAME, "--host", HOST)
    with open_folder() as folder:
        with ordinary_rights():
            said = refused(1, "init", folder / "fed", "--name", NAME, "--host", HOST)
        assert "it can't be written: Permission denied" in said
        assert list(folder.iterdir()) == []


def test_a_disk_that_fills_in_the_middle_leaves_no_half_federation(tmp_path: Path) -> None:
    with largest_file(600):
        said = refused(1, "init", tmp_path / "fed", "--name", NAME, "--host", HOST, "--model", STARTER)
    assert "it can't be written" in said
    assert content(tmp_path / "fed") == {}

    init(tmp_path / "fed", "--model", STARTER)
