"""What takes a while says so on a terminal, and nowhere else."""

import os
import pty
import sys
import termios
import time

from nibblecore.sim import progress


def shown(monkeypatch, terminal):
    """What stderr gets in some hundredths of a second, by a clock that ticks often."""
    reading, writing = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(writing, (24, 80))
    monkeypatch.setattr(progress, "_SECONDS", 0.01)
    with os.fdopen(writing, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with progress.doing("compiling"):
            time.sleep(0.3)
        stream.flush()
        os.set_blocking(reading, False)
        try:
            return os.read(reading, 1 << 16).decode()
        except BlockingIOError:
            return ""


def test_a_terminal_is_told(monkeypatch):
    assert shown(monkeypatch, terminal=True).count("compiling … 00:00") > 3


def test_a_file_is_not(monkeypatch):
    assert shown(monkeypatch, terminal=False) == ""
