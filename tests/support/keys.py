"""Keys of the kind that a site has, and of kinds that it may not have."""

from __future__ import annotations

import warnings
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from brainunet.certificates import new_site_key, public_key_id
from tests.support.authority import new_authority

KEY = new_site_key()
RSA_KEY = rsa.generate_private_key(65537, 2048)
DSA_KEY = dsa.generate_private_key(1024)
NAME = "charite-berlin"
AUTHORITY = new_authority()


def same(one: Any, other: Any) -> bool:
    return public_key_id(one) == public_key_id(other)


def openssh(key: Any) -> bytes:
    with warnings.catch_warnings(action="ignore"):  # DSA in this format is on its way out
        return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
