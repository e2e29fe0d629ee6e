"""AXI4 memory and AXI4-Lite master for cocotb benches; both check the protocol of whatever they are joined to."""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import bench
import numpy as np
from cocotb import start_soon
from cocotb.triggers import Lock, ReadOnly, RisingEdge

OKAY, EXOKAY, SLVERR, DECERR = range(4)
PAGE_BYTES = 4096


class Channel:
    """The signals of one AXI channel, by their names in the standard; checks that what is offered holds until taken."""

    def __init__(self, dut: Any, prefix: str, channel: str, payload: tuple[str, ...]) -> None:
        self.name = f"{prefix}__{channel}"
        self.valid = getattr(dut, f"{self.name}valid")
        self.ready = getattr(dut, f"{self.name}ready")
        self.payload = {part: getattr(dut, f"{self.name}{part}") for part in payload}
        self._waiting: dict[str, int] | None = None

    def sample(self) -> dict[str, int] | None:
        """In the read-only phase of a cycle: the payload if it is transferred in this cycle, else None."""
        if not self.valid.value:
            assert self._waiting is None, f"{self.name}: VALID withdrawn before READY"
            return None
        payload = {part: int(signal.value) for part, signal in self.payload.items()}
        assert self._waiting in (None, payload), f"{self.name}: {self._waiting} became {payload} before READY"
        taken = bool(self.ready.value)
        self._waiting = None if taken else payload
        return payload if taken else None

    def forget(self) -> None:
        self._waiting = None


class AxiMemory:
    """Memory of `size` bytes from address `base` on at an AXI4 manager's port; runs from its construction on.

    Answers in order. Checks that VALID and payload hold, that bursts are INCR, full width, aligned and within 4 KiB, and where
    WLAST is. Addresses outside are answered DECERR, read as 0 and not written; those in `errors` `refusal`, and not written either.
    Reset (``dut.rst``) makes it forget what is outstanding, not what is stored.

    Parameters
    ----------
    dut : cocotb handle
    size, base : int
    prefix : str
        Of the port; read or write channels that are not there are left alone.
    latency : int or (int, int)
        Cycles from an address' transfer to its first beat, from the last write beat to the response: fixed, or drawn
        between two bounds.
    patterns : dict
        For each channel ``"ar"``, ``"r"``, ``"aw"``, ``"w"``, ``"b"`` a name of `bench.PATTERNS`: when it is ready or valid.
    order : str
        ``"any"``, ``"data first"`` (AWREADY waits for a beat on offer) or ``"address first"`` (WREADY waits for AW).
    seed : int

    Members
    -------
    data : numpy array of uint8
    errors : set of int
        Addresses of beats (aligned) to answer with an error.
    refusal : int
        What they are answered: SLVERR, or another.
    reads, writes : list of (address, beats)
        Every burst since the start.
    outstanding_reads, outstanding_writes : int
        Bursts whose last beat or response is still due.
    """

    def __init__(
        self,
        dut: Any,
        size: int,
        *,
        base: int = 0,
        prefix: str = "m_axi",
        latency: int | tuple[int, int] = 1,
        patterns: dict[str, str] | None = None,
        order: str = "any",
        seed: int = 1,
    ) -> None:
        self.dut = dut
        self.base = base
        self.order = order
        self.data = np.zeros(size, dtype=np.uint8)
        self.errors: set[int] = set()
        self.refusal = SLVERR
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.cycle = 0
        rng = random.Random(seed)
        low, high = (latency, latency) if isinstance(latency, int) else latency
        self._latency: Callable[[], int] = lambda: rng.randint(low, high)
        names = patterns or {}
        self._patterns: dict[str, Iterator[bool]] = {
            channel: bench.PATTERNS[names.get(channel, "always")](seed + 11 * number)
            for number, channel in enumerate(("ar", "r", "aw", "w", "b"))
        }
        address = ("addr", "len", "size", "burst")
        self._ar = self._aw = None
        if hasattr(dut, f"{prefix}__arvalid"):
            self._ar, self._r = Channel(dut, prefix, "ar", address), Channel(dut, prefix, "r", ("data", "resp", "last"))
            self.bus_bytes = len(self._r.payload["data"]) // 8
        if hasattr(dut, f"{prefix}__awvalid"):
            self._aw, self._w = Channel(dut, prefix, "aw", address), Channel(dut, prefix, "w", ("data", "strb", "last"))
            self._b = Channel(dut, prefix, "b", ("resp",))
            self.bus_bytes = len(self._w.payload["data"]) // 8
        assert self._ar or self._aw, f"no AXI4 port {prefix}"
        self._watched = ([self._ar] if self._ar else []) + ([self._aw, self._w] if self._aw else [])
        self._forget()
        # So that no input is undefined before the first clock edge.
        self._drive_read()
        self._drive_write()
        start_soon(self._run())

    @property
    def outstanding_reads(self) -> int:
        return len(self._reading)

    @property
    def outstanding_writes(self) -> int:
        return len(self._writing) + len(self._responses)

    def fill(self, seed: int) -> None:
        """Random contents."""
        self.data[:] = np.random.default_rng(seed).integers(0, 256, self.data.size, dtype=np.uint8)

    def beat(self, address: int) -> int:
        """The beat at an aligned address, as a read returns it."""
        return self._access(address)[0]

    def _access(self, address: int) -> tuple[int, int]:
        place = address - self.base
        if not 0 <= place <= self.data.size - self.bus_bytes:
            return 0, DECERR
        word = int.from_bytes(self.data[place : place + self.bus_bytes].tobytes(), "little")
        return word, self.refusal if address in self.errors else OKAY

    def _forget(self) -> None:
        self._reading: deque[list[int]] = deque()  # [address of the next beat, beats left, first cycle]
        self._writing: deque[list[int]] = deque()  # [address of the next beat, beats left, worst response]
        self._beats: deque[dict[str, int]] = deque()  # taken before their address
        self._responses: deque[tuple[int, int]] = deque()  # (response, first cycle)
        self._r_held = self._b_held = self._beat_offered = False
        for channel in self._watched:
            channel.forget()

    async def _run(self) -> None:
        while True:
            await ReadOnly()
            in_reset = bool(self.dut.rst.value)
            if in_reset:
                self._forget()
            else:
                if self._ar:
                    self._sample_read()
                if self._aw:
                    self._sample_write()
            await RisingEdge(self.dut.clk)
            self.cycle += 1
            self._drive_read()
            self._drive_write()

    def _burst(self, name: str, payload: dict[str, int]) -> tuple[int, int]:
        address, beats = payload["addr"], payload["len"] + 1
        assert payload["burst"] == 1, f"{name}: burst type {payload['burst']} is not INCR"
        assert 1 << payload["size"] == self.bus_bytes, f"{name}: size {payload['size']} is not the bus's"
        assert address % self.bus_bytes == 0, f"{name}: address {address:#x} is not aligned"
        last = address + beats * self.bus_bytes - 1
        assert address // PAGE_BYTES == last // PAGE_BYTES, f"{name}: {beats} beats at {address:#x} cross 4 KiB"
        return address, beats

    def _drive_read(self) -> None:
        if not self._ar:
            return
        self._ar.ready.value = int(next(self._patterns["ar"]))
        ready = bool(self._reading) and self._reading[0][2] <= self.cycle and next(self._patterns["r"])
        if self._r_held or ready:
            self._r_held = True
            address, left, _ = self._reading[0]
            word, response = self._access(address)
            self._r.payload["data"].value, self._r.payload["resp"].value = word, response
            self._r.payload["last"].value = int(left == 1)
        else:
            # Whoever reads beats that are not valid shall notice.
            self._r.payload["data"].value, self._r.payload["resp"].value = (1 << 8 * self.bus_bytes) - 1, SLVERR
            self._r.payload["last"].value = 1
        self._r.valid.value = int(self._r_held)

    def _sample_read(self) -> None:
        assert self._ar
        if self._r_held and self._r.ready.value:
            burst = self._reading[0]
            burst[0] += self.bus_bytes
            burst[1] -= 1
            if burst[1] == 0:
                self._reading.popleft()
            self._r_held = False
        taken = self._ar.sample()
        if taken:
            address, beats = self._burst("AR", taken)
            self.reads.append((address, beats))
            self._reading.append([address, beats, self.cycle + self._latency()])

    def _drive_write(self) -> None:
        if not self._aw:
            return
        # The manager may not wait for READY, so READY may wait for the other channel, seen a cycle late.
        address_may_go = self.order != "data first" or self._beat_offered or bool(self._beats)
        beat_may_go = self.order != "address first" or bool(self._writing)
        self._aw.ready.value = int(next(self._patterns["aw"]) and address_may_go)
        self._w.ready.value = int(next(self._patterns["w"]) and beat_may_go)
        ready = bool(self._responses) and self._responses[0][1] <= self.cycle and next(self._patterns["b"])
        self._b_held = self._b_held or ready
        self._b.payload["resp"].value = self._responses[0][0] if self._b_held else SLVERR
        self._b.valid.value = int(self._b_held)

    def _sample_write(self) -> None:
        assert self._aw
        self._beat_offered = bool(self._w.valid.value)
        if self._b_held and self._b.ready.value:
            self._responses.popleft()
            self._b_held = False
        taken = self._aw.sample()
        if taken:
            address, beats = self._burst("AW", taken)
            self.writes.append((address, beats))
            self._writing.append([address, beats, OKAY])
        beat = self._w.sample()
        if beat:
            self._beats.append(beat)
        while self._beats and self._writing:
            self._store(self._beats.popleft())

    def _store(self, beat: dict[str, int]) -> None:
        burst = self._writing[0]
        address, left, _ = burst
        assert beat["last"] == int(left == 1), f"WLAST is {beat['last']} with {left} beats to go, at {address:#x}"
        _, response = self._access(address)
        if response == OKAY:
            word = beat["data"].to_bytes(self.bus_bytes, "little")
            for lane in range(self.bus_bytes):
                if beat["strb"] >> lane & 1:
                    self.data[address - self.base + lane] = word[lane]
        burst[:] = [address + self.bus_bytes, left - 1, max(burst[2], response)]
        if left == 1:
            self._writing.popleft()
            self._responses.append((burst[2], self.cycle + self._latency()))


async def watch_error(dut: Any, channel: str, met: Counter[tuple[int, bool]], prefix: str = "m_axi") -> None:
    """Asserts in every cycle that answers other than OKAY raise `error`, that `clear` alone lowers it, and that an answer beats a clear.

    Counts in `met` the answers: (code, whether `clear` was high).
    """
    names = (f"{channel}valid", f"{channel}ready", f"{channel}resp")
    valid, ready, response = (getattr(dut, f"{prefix}__{name}") for name in names)
    expected = None
    while True:
        await ReadOnly()
        error, clear = bool(dut.error.value), bool(dut.clear.value)
        assert expected in (None, error), f"error is {error} the cycle after an answer or a clear that make it {expected}"
        expected = error and not clear
        if valid.value and ready.value:
            met[int(response.value), clear] += 1
            expected |= bool(int(response.value) != OKAY)
        if dut.rst.value:
            expected = False
        await RisingEdge(dut.clk)


async def clear_in(dut: Any, cycle: int) -> None:
    """Pulses `clear`, `cycle` cycles after the next edge."""
    for _ in range(cycle + 1):
        await RisingEdge(dut.clk)
    dut.clear.value = 1
    await RisingEdge(dut.clk)
    dut.clear.value = 0
    await RisingEdge(dut.clk)


class AxiLiteMaster:
    """Reads and writes registers over AXI4-Lite; concurrent calls wait for each other, reads and writes apart."""

    def __init__(self, dut: Any, prefix: str = "s_axi") -> None:
        self.dut = dut
        self._aw, self._w = Channel(dut, prefix, "aw", ("addr",)), Channel(dut, prefix, "w", ("data", "strb"))
        self._b = Channel(dut, prefix, "b", ("resp",))
        self._ar, self._r = Channel(dut, prefix, "ar", ("addr",)), Channel(dut, prefix, "r", ("data", "resp"))
        for channel in (self._aw, self._w, self._ar):
            channel.valid.value = 0
            for signal in channel.payload.values():
                signal.value = 0
        self._b.ready.value = self._r.ready.value = 0
        self._reading, self._writing = Lock(), Lock()

    async def read(self, address: int) -> int:
        """The register at `address`; AssertionError if the answer is not OKAY."""
        data, response = await self.read_response(address)
        assert response == OKAY, f"reading {address:#x} was answered {response}"
        return data

    async def write(self, address: int, data: int) -> None:
        """Write all four bytes; AssertionError if the answer is not OKAY."""
        response = await self.write_response(address, data)
        assert response == OKAY, f"writing {address:#x} was answered {response}"

    async def read_response(self, address: int, *, ready_delay: int = 0) -> tuple[int, int]:
        """Data and RRESP; RREADY comes `ready_delay` cycles after the call."""
        async with self._reading:
            answer = start_soon(self._answer(self._r, ready_delay))
            await self._offer(self._ar, 0, addr=address)
            payload = await answer
            return payload["data"], payload["resp"]

    async def write_response(
        self, address: int, data: int, *, strobe: int = 0xF, address_delay: int = 0, data_delay: int = 0, ready_delay: int = 0
    ) -> int:
        """BRESP; AWVALID, WVALID and BREADY each come their number of cycles after the call."""
        async with self._writing:
            answer = start_soon(self._answer(self._b, ready_delay))
            put = start_soon(self._offer(self._aw, address_delay, addr=address))
            await self._offer(self._w, data_delay, data=data, strb=strobe)
            await put
            return (await answer)["resp"]

    async def _offer(self, channel: Channel, delay: int, **payload: int) -> None:
        for _ in range(delay):
            await RisingEdge(self.dut.clk)
        channel.valid.value = 1
        for part, value in payload.items():
            channel.payload[part].value = value
        while True:
            await ReadOnly()
            taken = bool(channel.ready.value)
            await RisingEdge(self.dut.clk)
            if taken:
                break
        channel.valid.value = 0

    async def _answer(self, channel: Channel, delay: int) -> dict[str, int]:
        cycle = 0
        while True:
            channel.ready.value = int(cycle >= delay)
            await ReadOnly()
            payload = channel.sample()
            await RisingEdge(self.dut.clk)
            cycle += 1
            if payload is not None:
                channel.ready.value = 0
                return payload
