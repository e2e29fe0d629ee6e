"""Boards by name, in plain Python: what of them decides the design."""

from dataclasses import dataclass, replace
from hashlib import sha256

from nibblecore.hdl.config import CambriconqConfig, LtoaqConfig

from .chips import SDRAM_32M, SdramChip, SdramTiming

__all__ = ["TARGETS", "Target", "build_of"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A board, and what of it the design is made for.

    Parameters
    ----------
    name, device : str
    platform : str
        The class of amaranth-boards with its pins, ``"module:class"``.
    vendor : bool
        Its vendor's tools make the bitstream; else Yosys and nextpnr do.
    loader : str
        What openFPGALoader calls it; "" if it does not.
    clock_hz : int
        Of the design: that of the board, or an even part of it.
    baud : int
        Of the line to the host.
    memory_bytes : int
        In block RAM, or in the chip.
    sdram : SdramChip or None
        Memory is in this chip, with the board's resource ``sdram``; in block RAM without.
    lamps : tuple of int
        Numbers of the LEDs for busy and error, as far as there are any.
    button : (str, int) or None
        The resource that resets, if it is not the board's own.
    serial : ((str, int), str, str) or None
        A connector and its pins for rx and tx, where the board has no serial port.
    """

    name: str
    device: str
    platform: str
    vendor: bool = False
    loader: str = ""
    clock_hz: int = 25_000_000
    baud: int = 3_000_000
    memory_bytes: int = 1 << 18
    sdram: SdramChip | None = None
    lamps: tuple[int, ...] = (0, 7)
    button: tuple[str, int] | None = None
    serial: tuple[tuple[str, int], str, str] | None = None

    @property
    def timed_sdram(self) -> tuple[SdramChip, SdramTiming] | None:
        """The chip and its times at the design's clock, as of `Board`."""
        return (self.sdram, self.sdram.timing(self.clock_hz)) if self.sdram else None

    def refusal(self, config: LtoaqConfig | CambriconqConfig) -> str:
        """Why the board can have no such accelerator; "" if it can."""
        if self.sdram and isinstance(config, CambriconqConfig) and config.dram:
            return f"the engine beside the memory needs banks of block RAM, and the memory of {self.name} is SDRAM; take {config.name}_bus"
        return ""


_ULX3S = Target(
    name="ulx3s", device="LFE5U-85F", platform="amaranth_boards.ulx3s:ULX3S_85F_Platform", loader="ulx3s", button=("button_fire", 0)
)

TARGETS = {
    target.name: target
    for target in (
        _ULX3S,
        replace(_ULX3S, name="ulx3s_sdram", sdram=SDRAM_32M, memory_bytes=SDRAM_32M.bytes),
        Target(
            name="ecpix5_85f", device="LFE5UM5G-85F", platform="amaranth_boards.ecpix5:ECPIX585Platform", loader="ecpix5", lamps=()
        ),
        Target(
            name="ecp5_5g_evn",
            device="LFE5UM5G-85F",
            platform="amaranth_boards.ecp5_5g_evn:ECP55GEVNPlatform",
            loader="ecp5_evn",
            clock_hz=12_000_000,
            baud=2_000_000,
        ),
        Target(
            name="orangecrab_85f",
            device="LFE5U-85F",
            platform="amaranth_boards.orangecrab_r0_2:OrangeCrabR0_2_85FPlatform",
            loader="orangeCrab",
            clock_hz=24_000_000,
            lamps=(),
            serial=(("io", 0), "0", "1"),
        ),
        Target(
            name="logicbone_85f",
            device="LFE5UM5G-85F",
            platform="amaranth_boards.logicbone:Logicbone85FPlatform",
            lamps=(0, 3),
            serial=(("P9", 0), "12", "13"),
        ),
        Target(
            name="ulx3s_45f",
            device="LFE5U-45F",
            platform="amaranth_boards.ulx3s:ULX3S_45F_Platform",
            loader="ulx3s",
            memory_bytes=1 << 17,
            button=("button_fire", 0),
        ),
        Target(
            name="icesugar_pro",
            device="LFE5U-25F",
            platform="amaranth_boards.icesugar_pro:ICESugarProPlatform",
            sdram=SDRAM_32M,
            memory_bytes=SDRAM_32M.bytes,
            lamps=(),
        ),
        Target(
            name="icepi_zero",
            device="LFE5U-25F",
            platform="amaranth_boards.icepi_zero:IcepiZero1_3Platform",
            sdram=SDRAM_32M,
            memory_bytes=SDRAM_32M.bytes,
            lamps=(0, 4),
        ),
        Target(
            name="versa_ecp5",
            device="LFE5UM-45F",
            platform="amaranth_boards.versa_ecp5:VersaECP5Platform",
            loader="ecp5_evn",
            memory_bytes=1 << 17,
        ),
        Target(
            name="arty_a7_100",
            device="xc7a100ti",
            vendor=True,
            platform="amaranth_boards.arty_a7:ArtyA7_100Platform",
            loader="arty_a7_100t",
            lamps=(0, 3),
        ),
        Target(
            name="arty_s7_50",
            device="xc7s50",
            vendor=True,
            platform="amaranth_boards.arty_s7:ArtyS7_50Platform",
            loader="arty_s7_50",
            lamps=(0, 3),
        ),
        Target(
            name="nexys4_ddr",
            device="xc7a100t",
            vendor=True,
            platform="amaranth_boards.nexys4ddr:Nexys4DDRPlatform",
            loader="nexys_a7_100",
        ),
        Target(
            name="genesys2", device="xc7k325t", vendor=True, platform="amaranth_boards.genesys2:Genesys2Platform", loader="genesys2"
        ),
        Target(
            name="kc705",
            device="xc7k325t",
            vendor=True,
            platform="amaranth_boards.kc705:KC705Platform",
            loader="kc705",
            clock_hz=39_000_000,
        ),
        Target(
            name="ax7325b", device="xc7k325t", vendor=True, platform="amaranth_boards.alinx_ax7325b:AX7325BPlatform", lamps=(0, 3)
        ),
        Target(
            name="alchitry_pt_v2", device="xc7a100t", vendor=True, platform="amaranth_boards.alchitry_ptv2:AlchitryPtV2Platform"
        ),
        Target(
            name="de10_nano",
            device="5CSEBA6",
            vendor=True,
            platform="amaranth_boards.de10_nano:DE10NanoPlatform",
            loader="de10nano",
        ),
    )
}


def build_of(config: LtoaqConfig | CambriconqConfig) -> bytes:
    """What a board says in its greeting that it was built from."""
    return sha256(repr(config).encode()).digest()[:8]
