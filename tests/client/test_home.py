"""The client's folder: closed to others, never a folder of somebody else's, and for one client at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from brainunet.errors import BrainUNetError
from brainunet_client.home import Home, hold_lock, open_home
from tests.support.rights import NOBODY, open_folder, ordinary_rights

HOLD = """
import sys, pathlib
from brainunet_client.home import Home, hold_lock
with hold_lock(Home(pathlib.Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_home_is_closed_to_others_with_all_that_holds_images(tmp_path: Path) -> None:
    home = open_home(tmp_path / "deep" / "home")

    assert [mode(path) for path in (home.path, home.cache, home.work)] == [0o700, 0o700, 0o700]
    assert open_home(home.path) == home


def test_a_home_that_somebody_opened_to_others_is_closed_again(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    home.settings.touch()
    home.path.chmod(0o755)

    open_home(home.path)

    assert mode(home.path) == 0o700


def test_an_empty_folder_becomes_a_home(tmp_path: Path) -> None:
    (tmp_path / "volume" / "lost+found").mkdir(parents=True)
    (tmp_path / "volume").chmod(0o777)

    assert mode(open_home(tmp_path / "volume").path) == 0o700


def test_a_folder_of_other_things_that_others_may_read_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "thesis.docx").touch()

    with pytest.raises(BrainUNetError, match=r"with other things in it \(thesis.docx\).*--home DIR"):
        open_home(shared)

    assert (mode(shared), [path.name for path in shared.iterdir()]) == (0o755, ["thesis.docx"])


def test_a_folder_of_other_things_that_is_closed_already_may_be_a_home(tmp_path: Path) -> None:
    (tmp_path / "site.kit").touch()
    tmp_path.chmod(0o700)

    assert open_home(tmp_path).path == tmp_path


def test_a_home_below_the_users_own_folder_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert open_home(Path("~/.brainunet")).path == tmp_path / ".brainunet"


def test_a_file_in_the_place_of_a_home_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("mine")

    with pytest.raises(BrainUNetError, match=r"home: .*File exists.*Name another folder by --home DIR"):
        open_home(tmp_path / "home")


@pytest.mark.parametrize("there", [True, False])
def test_a_home_that_can_not_be_written_is_refused_with_what_to_do(there: bool) -> None:
    with open_folder() as folder:
        path = folder if there else folder / "home"
        with ordinary_rights(), pytest.raises(BrainUNetError, match=r"BRAINUNET_HOME"):
            open_home(path)


def test_a_home_of_a_user_without_special_rights_works() -> None:
    with open_folder() as folder:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        with ordinary_rights(), hold_lock(open_home(folder / "home")):
            pass


def test_everything_in_a_home_lies_below_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    places = [home.key, home.kit, home.settings, home.ledger, home.sides, home.consent, home.cache, home.work, home.log]
    places += [home.lock, home.received, home.reply, home.request_of("lagos")]

    assert all(path.is_relative_to(tmp_path) for path in places)
    assert len(set(places)) == len(places)
    assert home.request is None


def test_a_second_client_is_refused_and_told_which_process_is_the_first(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        try:
            with pytest.raises(BrainUNetError, match=rf"another client works in it \(process {first.pid}\)"), hold_lock(home):
                pass
        finally:
            first.kill()
    with hold_lock(home):  # a client that was killed leaves no lock
        assert home.lock.read_text() == f"{os.getpid()}\n"


def test_a_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    with hold_lock(home):
        with pytest.raises(BrainUNetError, match=f"process {os.getpid()}"), hold_lock(home):
            pass
        assert mode(home.lock) == 0o600
    with hold_lock(home):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"many words" * 100])
def test_a_lock_held_by_nobody_knows_whom_is_refused_in_words_too(tmp_path: Path, content: bytes) -> None:
    home = open_home(tmp_path)
    with hold_lock(home):
        home.lock.write_bytes(content)
        with pytest.raises(BrainUNetError, match="process not known"), hold_lock(home):
            pass


def test_a_home_that_is_gone_can_not_be_locked(tmp_path: Path) -> None:
    with pytest.raises(BrainUNetError, match=r"lock: it can't be locked"), hold_lock(Home(tmp_path / "gone")):
        pass
