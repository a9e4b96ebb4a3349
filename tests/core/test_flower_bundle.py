"""Both ends of a federation have one bundle, without code, and Flower is told how it has to behave."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from flwr.common.config import get_fab_config, get_metadata_from_config
from flwr.supernode.start_client_internal import _verify_fab as flower_verifies

from brainunet.flower_bundle import APP_ID, APP_VERSION, bundle, signed_bundle, trusted_entities
from brainunet.flower_environment import CHUNK_BYTES
from brainunet.signing import new_signing_key

KEY = new_signing_key()

# Flower's own way to make a bundle
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


def test_the_bundle_is_the_same_bytes_in_every_process() -> None:
    script = "import sys; from brainunet.flower_bundle import bundle; sys.stdout.buffer.write(bundle())"

    other = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout

    assert other == bundle()


def test_there_is_no_code_in_it() -> None:
    with zipfile.ZipFile(io.BytesIO(bundle())) as files:
        assert {Path(name).name for name in files.namelist()} == {"pyproject.toml", "CONTENT"}
        assert b"import" not in b"".join(map(files.read, files.namelist()))


def test_flower_reads_its_name_and_version() -> None:
    assert get_metadata_from_config(get_fab_config(bundle())) == (APP_ID, APP_VERSION)


def test_flower_s_own_check_passes_what_the_federation_signed() -> None:
    fab = signed_bundle(KEY)

    assert (fab.content, fab.hash_str) == (bundle(), hashlib.sha256(bundle()).hexdigest())
    assert fab.verifications["valid_license"]
    assert flower_verifies(fab, trusted_entities(KEY.public))
    assert not flower_verifies(fab, trusted_entities(new_signing_key().public))


TELLS = """
import json, sys
from pathlib import Path
from brainunet.flower_environment import prepare_flower
prepare_flower(Path(sys.argv[1]))
from flwr.common import constant
from flwr.supercore import constant as core, telemetry, utils
print(json.dumps([
    constant.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE, core.FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES,
    telemetry.FLWR_TELEMETRY_ENABLED, str(utils.get_flwr_home()),
]))
"""


def test_flower_takes_our_settings_when_it_is_imported_after_them(tmp_path: Path) -> None:
    told = subprocess.run([sys.executable, "-c", TELLS, str(tmp_path)], check=True, capture_output=True, text=True).stdout

    assert json.loads(told) == [CHUNK_BYTES, 1, "0", str(tmp_path)]
