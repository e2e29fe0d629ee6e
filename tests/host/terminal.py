"""A board behind a pseudo-terminal, as behind a serial port."""

import os
import select
import threading
import tty
from contextlib import contextmanager

__all__ = ["at_a_terminal"]


@contextmanager
def at_a_terminal(answer):
    """The name of a port at which `answer(bytes)` gives the bytes that go back.

    Nobody reads or writes the descriptor any more once it is closed: its number may be another file's by then.
    """
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    left, leave = os.pipe()

    os.set_blocking(ours, False)

    def serve():
        said = b""
        while True:
            readable, writable, _ = select.select([ours, left], [ours] if said else [], [])
            if left in readable:
                return
            if writable:
                said = said[os.write(ours, said) :]
            elif ours in readable:
                said = answer(os.read(ours, 4096))

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield os.ttyname(theirs)
    finally:
        os.close(leave)
        server.join()
        for descriptor in (ours, theirs, left):
            os.close(descriptor)
