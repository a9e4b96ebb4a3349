"""What checks found is told in plain lines, in colours on a terminal, and never by less than all of them."""

from __future__ import annotations

import io
import sys

import pytest

from brainunet.errors import ConfigError
from brainunet_client.preflight import Check, show
from brainunet_client.preflight.report import guarded


def test_a_check_that_breaks_is_a_failed_line_and_hides_no_other() -> None:
    def broken(_: None) -> Check:
        raise ZeroDivisionError("division by zero")

    def refused(_: None) -> Check:
        raise ConfigError("kit", found="no such file", expected="a kit", remedy="ask for it")

    assert [check.said for check in guarded("x", broken, None, 6)] == [
        "the check itself failed: ZeroDivisionError: division by zero"
    ]
    assert guarded("x", refused, None, 4) == [Check("x", "FAIL", "kit: no such file, but expected a kit", "ask for it", 4)]


def test_the_report_is_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show(
        [
            Check("kit", "PASS", "of lagos [bold]" + "x" * 200),
            Check("clock", "FAIL", "slow\x1b[2J\nPASS  all", "switch on NTP", 6),
            Check("disk", "WARN", "4 GB"),
        ]
    )

    assert capsys.readouterr().out.splitlines() == [
        f"PASS  kit    of lagos [bold]{'x' * 200}",
        "FAIL  clock  slow?[2J?PASS  all",
        "             switch on NTP",
        "WARN  disk   4 GB",
        "Not ready: 1 of 3 checks failed, 1 warning.",
    ]


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    show([Check("kit", "PASS", "good")])

    assert "\x1b[32mPASS" in terminal.getvalue()


def test_the_verdict_of_a_ready_site(capsys: pytest.CaptureFixture[str]) -> None:
    show([Check("kit", "PASS", "good")])

    assert capsys.readouterr().out.splitlines()[-1] == "Ready: nothing failed, no warnings."
