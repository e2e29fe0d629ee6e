"""Memory chips that boards carry, in plain Python: how they are laid out, and what time their commands take."""

from dataclasses import dataclass, fields
from math import ceil

__all__ = ["SDRAM_32M", "SdramChip", "SdramTiming"]


@dataclass(frozen=True, kw_only=True)
class SdramTiming:
    """The times of an SDR SDRAM in cycles of its clock; ValueError for less than 1.

    Parameters
    ----------
    cas : int
        CAS latency, 2 or 3: from READ to its word.
    rcd, rp, ras, rc, rrd : int
        At least, from ACTIVATE to READ or WRITE, from PRECHARGE to ACTIVATE or REFRESH, from ACTIVATE to PRECHARGE, to ACTIVATE or
        REFRESH of the same bank, and to ACTIVATE of another.
    wr : int
        At least, from WRITE to PRECHARGE.
    rfc, mrd : int
        At least, from REFRESH and from MODE to any command.
    refi : int
        At most, from REFRESH to REFRESH.
    power_up : int
        At least, before the first command.
    """

    cas: int
    rcd: int
    rp: int
    ras: int
    rc: int
    rrd: int
    wr: int
    rfc: int
    mrd: int
    refi: int
    power_up: int

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be a cycle or more, not {getattr(self, field.name)}")
        if self.cas not in (2, 3):
            raise ValueError(f"cas must be 2 or 3, not {self.cas}")
        if self.rrd > self.rc or self.refi < 2 * self.longest:
            raise ValueError(
                f"rrd must be at most rc, and refi at least {2 * self.longest}: not {self.rrd}, {self.rc} and {self.refi}"
            )

    @property
    def longest(self) -> int:
        """From when a refresh is due to REFRESH, at most: what was begun is waited for, and all rows are closed."""
        return max(self.rc, max(self.ras, self.rcd + self.wr) + self.rp) + 3


@dataclass(frozen=True, kw_only=True)
class SdramChip:
    """An SDR SDRAM of 16-bit words.

    A word's address has the column lowest, then the bank, then the row.

    Parameters
    ----------
    banks : int
    row_bits, column_bits : int
        Of addresses; columns of at most 10 bits, because A10 means something else beside them.
    rcd_ns, rp_ns, ras_ns, rc_ns, rrd_ns, wr_ns, rfc_ns, refi_ns, power_up_ns : int
        As of `SdramTiming`.
    cas2_hz : int
        The fastest clock at which CAS latency 2 is enough.
    """

    banks: int
    row_bits: int
    column_bits: int
    rcd_ns: int
    rp_ns: int
    ras_ns: int
    rc_ns: int
    rrd_ns: int
    wr_ns: int
    rfc_ns: int
    refi_ns: int
    power_up_ns: int
    cas2_hz: int

    WORD_BYTES = 2

    def __post_init__(self) -> None:
        if self.banks not in (2, 4) or not 1 <= self.column_bits <= 10 or self.row_bits < 11:
            raise ValueError(
                "a chip has 2 or 4 banks, 1 to 10 bits of column and 11 or more of row, "
                f"not {self.banks}, {self.column_bits} and {self.row_bits}"
            )

    @property
    def bank_bits(self) -> int:
        return (self.banks - 1).bit_length()

    @property
    def address_bits(self) -> int:
        """Of a word."""
        return self.column_bits + self.bank_bits + self.row_bits

    @property
    def bytes(self) -> int:
        return self.WORD_BYTES << self.address_bits

    def timing(self, clock_hz: int) -> SdramTiming:
        """At a clock. ValueError if it is too slow to refresh all rows in time."""

        def cycles(nanoseconds: int, least: int = 1) -> int:
            return max(least, ceil(nanoseconds * clock_hz / 1_000_000_000))

        return SdramTiming(
            cas=2 if clock_hz <= self.cas2_hz else 3,
            rcd=cycles(self.rcd_ns),
            rp=cycles(self.rp_ns),
            ras=cycles(self.ras_ns),
            rc=cycles(self.rc_ns),
            rrd=cycles(self.rrd_ns),
            # Some chips say nanoseconds, and some two cycles.
            wr=cycles(self.wr_ns, 2),
            rfc=cycles(self.rfc_ns),
            mrd=2,
            refi=self.refi_ns * clock_hz // 1_000_000_000,
            power_up=cycles(self.power_up_ns),
        )


SDRAM_32M = SdramChip(
    banks=4,
    row_bits=13,
    column_bits=9,
    rcd_ns=21,
    rp_ns=21,
    ras_ns=45,
    rc_ns=67,
    rrd_ns=15,
    wr_ns=15,
    rfc_ns=67,
    refi_ns=64_000_000 // 8192,
    power_up_ns=200_000,
    cas2_hz=100_000_000,
)
"""256 Mbit in 16-bit words, 32 MB, as the ULX3S, the iCESugar-Pro and the Icepi Zero have them of several makers: each time that of the
slowest of MT48LC16M16A2-75, IS42S16160G-7, W9825G6KH-6 and AS4C16M16SA-7.
"""
