"""Ed25519 signatures: who said this, and for which purpose. The one home of signing keys.

What is signed is ``b"brainunet-fl" NUL purpose NUL sha256(content)``: a signature made for one purpose never passes for
another, and a file of any size is signed without being held in memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from brainunet.errors import ConfigError
from brainunet.files import write_new_private, writing_aside

_FORMAT: Final = "brainunet-signature-1"
_MAX_BYTES: Final = 16 * 1024  # of a key or a signature file


@dataclass(frozen=True)
class PublicKey:
    """The half that everybody may know: 32 bytes."""

    raw: bytes

    @property
    def text(self) -> str:
        """The key in base64, 44 characters."""
        return base64.b64encode(self.raw).decode()

    @property
    def id(self) -> str:
        """A short name for logs and screens: 16 hexadecimal digits of the key's SHA-256."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """The key whose ``text`` this is.

        Raises:
            ConfigError: not 32 bytes in base64.
        """
        raw = _decoded(text, 32)
        if raw is None:
            raise ConfigError(
                "public key", found=repr(text)[:60], expected="32 bytes in base64", remedy="copy the whole key again"
            )
        return cls(raw)

    def verify(self, purpose: str, content: bytes, signature: str) -> bool:
        """Whether ``signature`` was made with this key for this purpose and content; garbage is simply not."""
        return self._verify(purpose, hashlib.sha256(content).digest(), signature)

    def _verify(self, purpose: str, sha256: bytes, signature: str) -> bool:
        raw = _decoded(signature, 64)
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(raw or b"", _message(purpose, sha256))
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """The half that its owner alone has."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.private.public_key().public_bytes_raw())

    def sign(self, purpose: str, content: bytes) -> str:
        """The signature in base64, 88 characters; equal inputs give equal signatures."""
        return self._sign(purpose, hashlib.sha256(content).digest())

    def _sign(self, purpose: str, sha256: bytes) -> str:
        return base64.b64encode(self.private.sign(_message(purpose, sha256))).decode()


def new_signing_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


def write_signing_key(path: Path, key: SigningKey) -> None:
    """Write the key as PKCS #8 PEM that only its owner may read (0600).

    Raises:
        ConfigError: there is a file already; a key is never overwritten.
        BrainUNetError: disk full, or a folder that can't be written.
    """
    content = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_new_private(path, content)


def read_signing_key(path: Path) -> SigningKey:
    """The key of a file written by :func:`write_signing_key`.

    Raises:
        ConfigError: missing, not readable, or no Ed25519 key without a password.
    """
    try:
        key = load_pem_private_key(_read(path, "a signing key"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            path,
            found="something else than a signing key",
            expected="an Ed25519 key in PEM, without a password",
            remedy="put the key back from your backup",
        )
    return SigningKey(key)


def read_public_key(path: Path) -> PublicKey:
    """The key of a file that holds it in base64 (``signing.pub`` of a federation), or of a private key's own file.

    Raises:
        ConfigError: missing, not readable, or neither.
    """
    content = _read(path, "a public signing key")
    if content.lstrip().startswith(b"-----BEGIN"):
        return read_signing_key(path).public
    raw = _decoded(content.decode("ascii", errors="replace").strip(), 32)
    if raw is None:
        raise ConfigError(
            path,
            found="something else than a public key",
            expected="32 bytes in base64 on one line, as in a federation's signing.pub",
            remedy="ask the coordinator for the key again",
        )
    return PublicKey(raw)


def sign_file(path: Path, key: SigningKey, purpose: str) -> Path:
    """Sign the file's bytes as they are now; returns the signature's file, which is ``PATH.sig``.

    Raises:
        ConfigError: the file is missing or not readable.
        BrainUNetError: the signature can't be written.
    """
    sha256 = _sha256(path)
    told = {
        "format": _FORMAT,
        "purpose": purpose,
        "key": key.public.text,
        "sha256": sha256.hex(),
        "signature": key._sign(purpose, sha256),
    }
    signature = _beside(path)
    with writing_aside(signature) as aside:
        aside.write_text(json.dumps(told, indent=2) + "\n")
    return signature


def verify_file(path: Path, public: PublicKey, purpose: str) -> None:
    """Return only if ``PATH.sig`` is a signature by ``public``, for ``purpose``, of exactly the bytes of the file.

    Raises:
        ConfigError: a missing file or signature, no signature file, another key or purpose, or a changed file.
    """
    beside = _beside(path)
    told = _told(beside)
    sha256 = _sha256(path)
    if told["key"] != public.text:
        raise _refused(beside, f"a signature by key {_id(told['key'])}", f"one by key {public.id}")
    if told["purpose"] != purpose:
        raise _refused(beside, f"a signature for {told['purpose'][:40]!r}", f"one for {purpose!r}")
    if told["sha256"] != sha256.hex():
        raise _refused(path, "a file that was changed after it was signed", "the file that was signed")
    if not public._verify(purpose, sha256, told["signature"]):
        raise _refused(beside, "a signature that is not genuine", f"one made with key {public.id}")


def signer_of(path: Path) -> PublicKey | None:
    """The key that the signature beside the file says it was made with: a claim, until :func:`verify_file` has looked.

    None where there is no signature beside it.

    Raises:
        ConfigError: something else than a signature file beside it.
    """
    beside = _beside(path)
    if not beside.exists():
        return None
    raw = _decoded(_told(beside)["key"], 32)
    if raw is None:
        raise _refused(beside, "a signature that names no key", _FORMAT)
    return PublicKey(raw)


def _message(purpose: str, sha256: bytes) -> bytes:
    return b"brainunet-fl\0" + purpose.encode() + b"\0" + sha256


def _decoded(text: str, length: int) -> bytes | None:
    """So many bytes from their one base64 spelling, None of anything else."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        return None
    # the last character has unused bits: several texts would stand for the same bytes
    return raw if len(raw) == length and base64.b64encode(raw).decode() == text else None


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".sig")


def _told(path: Path) -> dict[str, str]:
    content = _read(path, "the signature of the file beside it")
    try:
        told: Any = json.loads(content)
    except (ValueError, RecursionError):
        told = None
    fields = {"format", "purpose", "key", "sha256", "signature"}
    if not isinstance(told, dict) or set(told) != fields or not all(isinstance(value, str) for value in told.values()):
        raise _refused(path, "no signature file", _FORMAT)
    if told["format"] != _FORMAT:
        raise _refused(path, f"a signature of format {told['format'][:40]!r}", _FORMAT)
    return told


def _id(text: str) -> str:
    raw = _decoded(text, 32)
    return PublicKey(raw).id if raw else repr(text)[:20]


def _sha256(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise _unreadable(path, error, "a file to sign or to check") from None


def _read(path: Path, expected: str) -> bytes:
    if path.is_fifo():  # it would be waited for
        raise ConfigError(path, found="a pipe", expected=expected, remedy="check that it is the right file")
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error, expected) from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(
            path, found=f"more than {_MAX_BYTES} bytes", expected=expected, remedy="check that it is the right file"
        )
    return content


def _unreadable(path: Path, error: OSError, expected: str) -> ConfigError:
    return ConfigError(
        path,
        found=error.strerror or "not readable",
        expected=expected,
        remedy="check that it is there and that you may read it",
    )


def _refused(path: Path, found: str, expected: str) -> ConfigError:
    return ConfigError(path, found=found, expected=expected, remedy="do not use the file; fetch it and its signature again")
