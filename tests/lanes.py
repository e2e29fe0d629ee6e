"""Many copies of a pipelined block side by side, so that one simulated cycle tests many vectors.

The block has ``i_valid`` and ``o_valid`` and takes what it is given: no back-pressure, a fixed ``LATENCY``. In the wrapper every other port
holds a lane in a whole number of bytes, so that numpy lays the words out.
"""

from collections.abc import Iterator
from typing import Any

import bench
import numpy as np
from amaranth import Cat, Const, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import ReadOnly, RisingEdge

LANES = 8


def _bytes(width: int) -> int:
    return -(-width // 8)


class Lanes(wiring.Component):
    """Copies of the block that `make` returns, under one ``i_valid``; ``o_valid`` has a bit for each. Of a large block, few build sooner."""

    def __init__(self, make: Any, lanes: int = LANES) -> None:
        self.lanes = lanes
        self.copies = [make() for _ in range(lanes)]
        members = {
            path[0]: (member.flow, Value.cast(value)) for path, member, value in self.copies[0].signature.flatten(self.copies[0])
        }
        self.inputs = {name: len(value) for name, (flow, value) in members.items() if flow is In and name != "i_valid"}
        self.outputs = {name: len(value) for name, (flow, value) in members.items() if flow is Out and name != "o_valid"}
        super().__init__(
            {
                "i_valid": In(1),
                "o_valid": Out(lanes),
                **{name: In(8 * _bytes(width) * lanes) for name, width in self.inputs.items()},
                **{name: Out(8 * _bytes(width) * lanes) for name, width in self.outputs.items()},
            }
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """What `Vectors` needs to know of the block."""
        return {"lanes": self.lanes, "latency": self.copies[0].LATENCY, "inputs": self.inputs, "outputs": self.outputs}

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for lane, copy in enumerate(self.copies):
            m.submodules[f"lane{lane}"] = copy
            m.d.comb += [copy.i_valid.eq(self.i_valid), self.o_valid[lane].eq(copy.o_valid)]
            for name, width in self.inputs.items():
                m.d.comb += Value.cast(getattr(copy, name)).eq(getattr(self, name).word_select(lane, 8 * _bytes(width))[:width])
        for name, width in self.outputs.items():
            padding = Const(0, 8 * _bytes(width) - width)
            m.d.comb += getattr(self, name).eq(Cat((Value.cast(getattr(copy, name)), padding) for copy in self.copies))
        return m


class Vectors:
    """Drives a `Lanes` from arrays and checks that ``o_valid`` follows ``i_valid`` by the latency."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.lanes, self.latency, self.inputs, self.outputs = (
            bench.parameters()[name] for name in ("lanes", "latency", "inputs", "outputs")
        )

    def idle(self) -> None:
        self.dut.i_valid.value = 0
        for name in self.inputs:
            getattr(self.dut, name).value = 0

    def _words(self, name: str, values: np.ndarray) -> list[int]:
        size = _bytes(self.inputs[name])
        data = np.ascontiguousarray(values, np.int64).view(np.uint8).reshape(-1, 8)[:, :size].tobytes()
        return [int.from_bytes(data[i : i + size * self.lanes], "little") for i in range(0, len(data), size * self.lanes)]

    async def run(self, pattern: Iterator[bool], **values: np.ndarray) -> dict[str, np.ndarray]:
        """Feeds one vector a lane whenever `pattern` says so; returns unsigned results in order."""
        dut, count = self.dut, len(next(iter(values.values())))
        padding = -count % self.lanes
        words = {name: self._words(name, np.pad(np.asarray(array), (0, padding))) for name, array in values.items()}
        assert words.keys() == self.inputs.keys()
        ports = [getattr(dut, name) for name in words]
        results: dict[str, list[int]] = {name: [] for name in self.outputs}
        reads = [(getattr(dut, name), results[name]) for name in self.outputs]
        rows, queue, inside = list(zip(*words.values(), strict=True)), 0, [False] * self.latency
        while queue < len(rows) or any(inside):
            valid = queue < len(rows) and next(pattern)
            dut.i_valid.value = valid
            if valid:
                for port, word in zip(ports, rows[queue], strict=True):
                    port.value = word
                queue += 1
            await ReadOnly()
            assert int(dut.o_valid.value) == (2**self.lanes - 1 if inside[0] else 0), (
                "o_valid does not follow i_valid by the latency"
            )
            if inside[0]:
                for port, taken in reads:
                    taken.append(int(port.value))
            inside = [*inside[1:], valid]
            await RisingEdge(dut.clk)
        dut.i_valid.value = 0
        return {name: self._array(name, taken)[:count] for name, taken in results.items()}

    def _array(self, name: str, words: list[int]) -> np.ndarray:
        size = _bytes(self.outputs[name])
        raw = np.frombuffer(b"".join(word.to_bytes(size * self.lanes, "little") for word in words), np.uint8).reshape(-1, size)
        return np.pad(raw, ((0, 0), (0, 8 - size))).view(np.uint64)[:, 0]

    async def check_reset(self) -> None:
        """A reset at any depth drops what is inside."""
        dut = self.dut
        for inside in range(1, self.latency + 1):
            dut.i_valid.value = 1
            for _ in range(inside):
                await RisingEdge(dut.clk)
            dut.rst.value, dut.i_valid.value = 1, 0
            await RisingEdge(dut.clk)
            dut.rst.value = 0
            for _ in range(self.latency + 1):
                await ReadOnly()
                assert not int(dut.o_valid.value), "a value survived the reset"
                await RisingEdge(dut.clk)


def compare(got: np.ndarray, expected: np.ndarray, **inputs: np.ndarray) -> None:
    """Asserts equality; names the first vector that differs."""
    wrong = np.flatnonzero(np.asarray(got, np.uint64) != np.asarray(expected, np.uint64))
    if len(wrong):
        first = wrong[0]
        vector = ", ".join(f"{name} = {int(array[first]):#x}" for name, array in inputs.items())
        raise AssertionError(
            f"{len(wrong)} of {len(got)} differ; first: {vector} gives {int(got[first]):#x}, not {int(expected[first]):#x}"
        )


async def start(dut: Any) -> Vectors:
    vectors = Vectors(dut)
    vectors.idle()
    await bench.start(dut)
    return vectors
