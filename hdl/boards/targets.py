"""Boards by name, in plain Python: what of them decides the design."""

from dataclasses import dataclass
from hashlib import sha256

from nibblecore.hdl.config import CambriconqConfig, LtoaqConfig

__all__ = ["TARGETS", "Target", "build_of"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A board, and what of it the design is made for.

    Parameters
    ----------
    name, device : str
    platform : str
        The class of amaranth-boards with its pins, ``"module:class"``.
    nextpnr : tuple of str
        What names the device to nextpnr.
    loader : str
        What openFPGALoader calls it.
    clock_hz : int
        Of the design.
    baud : int
        Of the line to the host.
    memory_bytes : int
        In block RAM.
    """

    name: str
    device: str
    platform: str
    nextpnr: tuple[str, ...]
    loader: str
    clock_hz: int
    baud: int
    memory_bytes: int


TARGETS = {
    target.name: target
    for target in (
        Target(
            name="ulx3s",
            device="LFE5U-85F",
            platform="amaranth_boards.ulx3s:ULX3S_85F_Platform",
            nextpnr=("--85k", "--package", "CABGA381", "--speed", "6"),
            loader="ulx3s",
            clock_hz=25_000_000,
            baud=3_000_000,
            memory_bytes=1 << 18,
        ),
    )
}


def build_of(config: LtoaqConfig | CambriconqConfig) -> bytes:
    """What a board says in its greeting that it was built from."""
    return sha256(repr(config).encode()).digest()[:8]
