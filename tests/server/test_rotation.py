"""``flower-server rotate``: new keys and certificates that fit what was there before."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from brainunet.kit import open_kit, require_kit_of
from brainunet.signing import read_signing_key, verify_file
from brainunet_server.authority import hosts_of, read_authority, read_certificate_file
from brainunet_server.federation import Folder
from brainunet_server.status import hold_lock
from tests.support.federation import (
    HOST,
    content,
    done,
    kinds,
    refused,
)


def test_the_servers_new_certificate_has_a_new_key_and_all_its_hosts(fed: Path) -> None:
    folder = Folder(fed)
    before, key = read_certificate_file(folder.server_certificate), folder.server_key.read_bytes()

    done("rotate", fed, "server", "--host", "new.example.org")

    after = read_certificate_file(folder.server_certificate)
    assert set(hosts_of(after)) == {*hosts_of(before), "new.example.org"}
    assert folder.server_key.read_bytes() != key
    assert stat.S_IMODE(folder.server_key.stat().st_mode) == 0o600
    assert read_authority(folder.server_key, folder.server_certificate).certificate == after  # they belong together
    assert kinds(fed)[-1] == "server-certificate-renewed"


def test_a_sites_new_certificate_is_for_the_same_key(
    fed: Path, requests: dict[str, Path], kit: Path, keys: dict[str, ec.EllipticCurvePrivateKey]
) -> None:
    done("enrol", fed, requests["north"], "-o", kit)
    first = open_kit(kit)

    done("rotate", fed, "site", "north", "-o", kit)

    require_kit_of(open_kit(kit), keys["north"])
    assert open_kit(kit).site_certificate != first.site_certificate
    assert open_kit(kit).fingerprint == first.fingerprint
    assert kinds(fed)[-1] == "site-certificate-renewed"


def test_a_new_signing_key_signs_the_start_model_and_a_kit_for_every_active_site(
    fed: Path, requests: dict[str, Path], kit: Path, tmp_path: Path
) -> None:
    folder = Folder(fed)
    for name in ("north", "south"):
        done("enrol", fed, requests[name], "-o", kit)
    done("revoke", fed, "south", "--reason", "left us")
    earlier, out = read_signing_key(folder.signing_key), tmp_path / "kits"
    out.mkdir()
    assert "one for the new kits of 1 sites" in refused(2, "rotate", fed, "signing")

    done("rotate", fed, "signing", "-o", out)

    now = read_signing_key(folder.signing_key)
    assert now.public != earlier.public
    assert folder.signing_public.read_text().strip() == now.public.text
    assert stat.S_IMODE(folder.signing_key.stat().st_mode) == 0o600
    verify_file(folder.start_model, now.public, "model")
    assert [path.name for path in out.iterdir()] == ["north.kit.json"]
    assert open_kit(out / "north.kit.json").signing_key == now.public.text
    assert kinds(fed)[-1] == "signing-key-rotated"


def test_a_start_model_that_was_changed_is_not_signed_again(fed: Path) -> None:
    with (fed / "start.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\1")
    before = content(fed)

    assert "changed after it was signed" in refused(4, "rotate", fed, "signing")
    assert content(fed) == before


def test_the_signing_key_is_not_changed_under_a_running_server(fed: Path) -> None:
    with hold_lock(Folder(fed)):
        assert "flower-server stop" in refused(6, "rotate", fed, "signing")


@pytest.mark.parametrize(
    "arguments", [("site",), ("server", "north"), ("signing", "north"), ("signing", "--host", HOST), ("server", "-o", "kit")]
)
def test_a_rotation_that_makes_no_sense_is_refused(fed: Path, arguments: tuple[str, ...]) -> None:
    refused(2, "rotate", fed, *arguments)


def test_without_the_folder_for_the_new_kits_no_key_is_changed(
    fed: Path, requests: dict[str, Path], kit: Path, tmp_path: Path
) -> None:
    done("enrol", fed, requests["north"], "-o", kit)
    before = content(fed)

    folder = tmp_path / "kitz"
    for rotation, out in ((("site", "north"), folder / "north.kit"), (("signing",), folder)):
        assert f"no folder {folder}" in refused(2, "rotate", fed, *rotation, "-o", out)

    assert content(fed) == before
