"""The app bundle that Flower requires for a run: a manifest and no code, the same bytes at both ends.

Flower sends a bundle (FAB) to every node and would run the code in it. Ours holds none: a hospital runs what is installed
there, and its client refuses every bundle that is not these very bytes, signed by its federation (docs/adr/0010).
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from functools import cache

from flwr.cli.build import build_fab_from_files
from flwr.supercore.fab import Fab
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign

from brainunet.signing import PublicKey, SigningKey

APP_ID, APP_VERSION = "brainunet/brainunet-fl", "1.0.0"

_MANIFEST = b"""\
[project]
name = "brainunet-fl"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "brainunet"

[tool.flwr.app.components]
serverapp = "brainunet_server.flower:none"
clientapp = "brainunet_client.flower:none"
"""


@cache
def bundle() -> bytes:
    """The bundle, deterministic."""
    content: bytes = build_fab_from_files({"pyproject.toml": _MANIFEST})[0]
    return content


def signed_bundle(key: SigningKey) -> Fab:
    """The bundle with the federation's signature, as Flower's nodes check it."""
    content = bundle()
    signed_at = int(time.time())
    # Flower's own message and not ours of brainunet.signing: its node verifies it
    signature = key.private.sign(create_message_to_sign(hashlib.sha256(content).digest(), signed_at))
    text = base64.urlsafe_b64encode(signature).decode().rstrip("=")
    verification = json.dumps({"signed_at": signed_at, "signature": text})
    # without "valid_license" a node takes the server for one that can't verify apps
    return Fab(hashlib.sha256(content).hexdigest(), content, {key.public.id: verification, "valid_license": "Valid"})


def trusted_entities(key: PublicKey) -> dict[str, str]:
    """Who may sign bundles, in the form that Flower's nodes take."""
    return {key.id: f"ssh-ed25519 {base64.b64encode(_ssh(b'ssh-ed25519') + _ssh(key.raw)).decode()}"}


def _ssh(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part
