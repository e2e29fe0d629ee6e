"""Signatures of the AXI4 and AXI4-Lite interfaces, with the standard's flat names.

A member ``m_axi`` of signature ``Axi4`` flattens to ports ``m_axi__araddr``, ``m_axi__arlen``, …
"""

from enum import IntEnum
from typing import Any

from amaranth.lib.wiring import In, Out, Signature

__all__ = ["BURST_INCR", "CACHE_NORMAL", "PAGE_BYTES", "Axi4", "Axi4Read", "Axi4Write", "AxiLite", "Response", "forward"]

BURST_INCR = 0b01
CACHE_NORMAL = 0b0011
"""AxCACHE: normal memory, not cacheable, bufferable: interconnects may merge and widen the bursts."""
PAGE_BYTES = 4096
"""No burst may cross a multiple of this address (AXI4, section A3.4.1)."""


class Response(IntEnum):
    """Codes of RRESP and BRESP."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def _check_bus(bus_bytes: int) -> None:
    if bus_bytes not in (4, 8, 16, 32, 64, 128):
        raise ValueError(f"bus_bytes must be a power of two in 4..128, not {bus_bytes}")


def _address_channel(prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}addr": Out(32),
        f"{prefix}len": Out(8),
        f"{prefix}size": Out(3),
        f"{prefix}burst": Out(2),
        f"{prefix}cache": Out(4),
        f"{prefix}prot": Out(3),
        f"{prefix}valid": Out(1),
        f"{prefix}ready": In(1),
    }


class Axi4Read(Signature):
    """Read channels of AXI4, seen from the manager: 32-bit addresses, no IDs, responses in order.

    Parameters
    ----------
    bus_bytes : int
        Width of the data bus, a power of two in 4..128.
    """

    def __init__(self, bus_bytes: int) -> None:
        _check_bus(bus_bytes)
        self.bus_bytes = bus_bytes
        super().__init__(
            {
                **_address_channel("ar"),
                "rdata": In(8 * bus_bytes),
                "rresp": In(2),
                "rlast": In(1),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class Axi4Write(Signature):
    """Write channels of AXI4, seen from the manager; otherwise as `Axi4Read`."""

    def __init__(self, bus_bytes: int) -> None:
        _check_bus(bus_bytes)
        self.bus_bytes = bus_bytes
        super().__init__(
            {
                **_address_channel("aw"),
                "wdata": Out(8 * bus_bytes),
                "wstrb": Out(bus_bytes),
                "wlast": Out(1),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
            }
        )


class Axi4(Signature):
    """All five channels of AXI4, seen from the manager; `forward` joins an `Axi4Read` and an `Axi4Write` to it.

    Parameters
    ----------
    bus_bytes : int
    id_bits : int
        Width of ARID, RID, AWID and BID, 0..32; without them if 0. What drives neither ARID nor AWID, as `forward` does not, gives every
        burst ID 0 and has all answered in order.
    """

    def __init__(self, bus_bytes: int, id_bits: int = 0) -> None:
        self.bus_bytes = bus_bytes
        self.id_bits = id_bits
        ids = {"arid": Out(id_bits), "rid": In(id_bits), "awid": Out(id_bits), "bid": In(id_bits)} if id_bits else {}
        super().__init__({**dict(Axi4Read(bus_bytes).members), **dict(Axi4Write(bus_bytes).members), **ids})


class AxiLite(Signature):
    """AXI4-Lite, seen from the manager: 32-bit data, no PROT.

    Parameters
    ----------
    address_bits : int
        Width of both addresses, in 2..32.
    """

    def __init__(self, address_bits: int) -> None:
        if not 2 <= address_bits <= 32:
            raise ValueError(f"address_bits must be in 2..32, not {address_bits}")
        self.address_bits = address_bits
        super().__init__(
            {
                "awaddr": Out(address_bits),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(32),
                "wstrb": Out(4),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(address_bits),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(32),
                "rresp": In(2),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


def forward(inner: Any, outer: Any) -> list[Any]:
    """Assignments that hand the channels of a submodule's port `inner` on to the enclosing component's port `outer`.

    `inner` may have some of the channels of `outer`; both are seen from the same side.
    """
    assignments = []
    for name, member in inner.signature.members.items():
        source, target = (inner, outer) if member.flow is Out else (outer, inner)
        assignments.append(getattr(target, name).eq(getattr(source, name)))
    return assignments
