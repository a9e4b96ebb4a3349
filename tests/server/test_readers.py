"""Readers: who may fetch published models without being a site."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from brainunet.errors import ConfigError
from brainunet.reader_pass import open_reader_pass, read_reader_pass, token_sha256
from brainunet_server.federation import Folder
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.writer import StoreWriter
from tests.support.federation import done, kinds, refused, told


def test_a_pass_holds_all_that_a_reader_needs_and_the_store_only_the_hash_of_its_secret(fed: Path, tmp_path: Path) -> None:
    said = done("reader", "add", fed, "ann", "-o", tmp_path / "ann.pass.json", "--days", "30")

    given = open_reader_pass(tmp_path / "ann.pass.json")
    assert (given.reader, given.server, given.federation) == ("ann", "fl.example.org:8445", "Glioma Africa")
    assert (given.expires_at - given.issued_at).days == 30
    assert given.fingerprint in said
    assert stat.S_IMODE((tmp_path / "ann.pass.json").stat().st_mode) == 0o600
    with StoreReader(Folder(fed).store) as store:
        [row] = store.readers()
    assert row.token_sha256 == token_sha256(given.token)
    for path in fed.rglob("*"):
        assert not path.is_file() or given.token.encode() not in path.read_bytes(), path
    assert given.token not in said + repr(given)
    assert kinds(fed)[-1] == "reader-added"


def test_a_reader_whose_pass_can_be_used_gets_no_second_one_until_it_is_revoked(fed: Path, tmp_path: Path) -> None:
    done("reader", "add", fed, "ann", "-o", tmp_path)
    assert "revoke it first" in refused(4, "reader", "add", fed, "ann", "-o", tmp_path / "second.json")
    assert not (tmp_path / "second.json").exists()

    done("reader", "revoke", fed, "ann")

    assert kinds(fed)[-1] == "reader-revoked"
    assert "revoked on" in refused(4, "reader", "revoke", fed, "ann")
    done("reader", "add", fed, "ann", "-o", tmp_path / "second.json")
    assert [row["revoked_at"] for row in told("reader", "list", fed)] == [None]


def test_the_list_shows_who_has_a_pass(fed: Path, tmp_path: Path) -> None:
    with StoreWriter(Folder(fed).store):
        pass
    assert "nobody has a pass; next:" in done("reader", "list", fed)

    done("reader", "add", fed, "ann", "-o", tmp_path)

    [row] = told("reader", "list", fed)
    assert (row["name"], row["downloads"]) == ("ann", 0)
    assert "token" not in json.dumps(row)
    assert "ann" in done("reader", "list", fed)


@pytest.mark.parametrize("name", ["", "a b", "../x", "\x1b"])
def test_a_name_that_is_none_makes_no_pass(fed: Path, tmp_path: Path, name: str) -> None:
    assert "NAME" in refused(2, "reader", "add", fed, name, "-o", tmp_path / "pass.json")
    assert not (tmp_path / "pass.json").exists()


def test_a_file_is_never_overwritten_and_a_folder_never_made(fed: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.json").write_text("precious")

    assert "already" in refused(4, "reader", "add", fed, "ann", "-o", tmp_path / "thesis.json")
    assert "no folder" in refused(2, "reader", "add", fed, "ann", "-o", tmp_path / "no" / "pass.json")

    assert (tmp_path / "thesis.json").read_text() == "precious"


def test_an_edited_or_expired_pass_is_refused_in_words_that_never_repeat_the_secret(fed: Path, tmp_path: Path) -> None:
    done("reader", "add", fed, "ann", "-o", tmp_path / "pass.json", "--days", "1")
    given = read_reader_pass(tmp_path / "pass.json")
    told_ = json.loads((tmp_path / "pass.json").read_text())

    with pytest.raises(ConfigError, match="has expired") as expired:
        open_reader_pass(tmp_path / "pass.json", now=given.expires_at)
    for field in ("token", "server", "signing_key", "expires_at"):
        edited = json.dumps(told_ | {field: told_[field][:-1] + "A"}).encode()
        with pytest.raises(ConfigError) as damaged:
            read_reader_pass(edited)
        assert given.token not in str(damaged.value)
    assert given.token not in str(expired.value)


def test_a_pass_in_the_place_of_a_kit_is_named(fed: Path, tmp_path: Path) -> None:
    from brainunet.kit import read_kit

    done("reader", "add", fed, "ann", "-o", tmp_path / "pass.json")

    with pytest.raises(ConfigError, match="reader's pass"):
        read_kit(tmp_path / "pass.json")
