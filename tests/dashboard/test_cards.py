"""Cards of models: read where they belong, signatures checked, and nothing opened that a store only claims."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainunet.modelfile import SIGNED_AS, ModelCard, write_model
from brainunet.signing import new_signing_key, sign_file
from brainunet.weights import Weights
from brainunet_dashboard.cards import release_card, round_card

CARD = {"title": "africa", "model": {"preset": "brainunet-nano"}, "preprocess": {}, "provenance": "x", "trained_on": "phantoms"}


@pytest.fixture
def fed(tmp_path: Path) -> Path:
    """A federation with one signed release."""
    fed = tmp_path / "fed"
    (fed / "keys").mkdir(parents=True)
    key = new_signing_key()
    (fed / "keys" / "signing.pub").write_text(key.public.text + "\n")
    a_model(fed / "published" / "africa.safetensors")
    sign_file(fed / "published" / "africa.safetensors", key, SIGNED_AS)
    return fed


def a_model(path: Path) -> None:
    write_model(path, Weights.of({"w": [1.0, 2.0]}), ModelCard.model_validate(CARD))


def test_a_signed_release_is_said_to_be_genuine(fed: Path) -> None:
    found = release_card(fed, "published/africa.safetensors")

    assert found.card is not None
    assert (found.card.title, found.is_signed) == ("africa", True)


def test_a_release_that_was_changed_has_a_card_and_a_broken_signature(fed: Path) -> None:
    path = fed / "published" / "africa.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    found = release_card(fed, "published/africa.safetensors")

    assert (found.card is not None, found.is_signed) == (True, False)
    assert "changed after it was signed" in found.signature


def test_a_release_without_the_federations_key_is_not_called_genuine(fed: Path) -> None:
    (fed / "keys" / "signing.pub").unlink()

    assert not release_card(fed, "published/africa.safetensors").is_signed


@pytest.mark.parametrize(
    "file", ["../secret.safetensors", "/etc/passwd", "keys/signing.pub", "published/../../secret.safetensors", "a\x00b"]
)
def test_a_store_that_names_a_file_elsewhere_is_not_obeyed(file: str, fed: Path) -> None:
    a_model(fed.parent / "secret.safetensors")

    assert release_card(fed, file).card is None
    assert round_card(fed, "r", file) is None


def test_a_link_out_of_the_folder_is_not_followed(fed: Path) -> None:
    a_model(fed.parent / "secret.safetensors")
    (fed / "published" / "link.safetensors").symlink_to(fed.parent / "secret.safetensors")

    assert release_card(fed, "published/link.safetensors").card is None


def test_a_missing_or_damaged_file_says_so(fed: Path) -> None:
    (fed / "published" / "bad.safetensors").write_bytes(b"\xff" * 99)

    assert release_card(fed, "published/gone.safetensors").problem
    assert "no model card" in release_card(fed, "published/bad.safetensors").problem


def test_a_rounds_model_is_found_in_a_federation_and_in_a_simulation(fed: Path) -> None:
    a_model(fed / "models" / "run-1" / "round-001.safetensors")
    a_model(fed / "models" / "round-002.safetensors")

    assert [round_card(fed, "run-1", f"round-00{k}.safetensors") is not None for k in (1, 2, 3)] == [True, True, False]
    assert round_card(fed, "../published", "africa.safetensors") is None
