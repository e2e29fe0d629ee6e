"""What every cocotb bench shares: building the emitted Verilog, and drivers for streams.

A bench file holds cocotb coroutines (named ``bench_*``, decorated with ``@cocotb.test()``) and a pytest function that calls
`run` with the component to build. Parameters travel to the simulator process as JSON and come back from `parameters()`.
Set ``SEED`` to repeat a run, ``WAVES=1`` to keep a waveform in the bench's build folder.
"""

import hashlib
import json
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.sim import verilator

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
OPTIONS = ["--no-public-flat-rw", "--public-depth", "1", "--output-split", "0", "-CFLAGS", "-O1"]


def run(component: Any, bench: str, name: str, *, parameters: dict[str, Any] | None = None) -> None:
    """Emit `component` as module `name`, build it with Verilator, run the cocotb tests of file `bench` on it.

    Raises AssertionError when a cocotb test fails or none ran.
    """
    from cocotb_tools.check_results import get_results
    from nibblecore.hdl.emit.emit import emit_verilog

    verilog = emit_verilog(component, name)
    tag = hashlib.sha256((verilog + json.dumps(parameters, sort_keys=True)).encode()).hexdigest()[:12]
    folder = BUILD / f"{Path(bench).stem}-{name}-{tag}"
    try:
        build(verilog, name, folder)
        results = simulate(name, bench, folder, parameters)
    except BaseException:
        for log in ("build.log", "run.log"):
            if (folder / log).exists():
                print(f"--- {folder / log} (last lines)\n" + "\n".join((folder / log).read_text().splitlines()[-60:]))
        raise
    ran, failed = get_results(results)
    if failed or not ran:
        print("\n".join((folder / "run.log").read_text().splitlines()[-80:]))
    assert ran > 0, f"{bench}: no cocotb test ran on {name}"
    assert failed == 0, f"{bench}: {failed} of {ran} cocotb tests failed on {name} (seed {_seed()}); log in {folder / 'run.log'}"


def build(verilog: str, name: str, folder: Path, build_args: Sequence[str] = ()) -> None:
    """Build module `name` in `folder`."""
    from cocotb_tools.runner import get_runner

    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{name}.v"
    source.write_text(verilog)
    with _simulator():
        get_runner("verilator").build(
            sources=[source],
            hdl_toplevel=name,
            build_dir=folder,
            always=True,
            waves=_waves(),
            timescale=("1ns", "1ps"),
            build_args=[*verilator.WARNINGS, *OPTIONS, *build_args],
            log_file=folder / "build.log",
        )


def simulate(
    name: str,
    bench: str,
    folder: Path,
    parameters: dict[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    modules: Sequence[str] = (),
) -> Path:
    """Run the cocotb tests of file `bench` and of more `modules` on what `build` left in `folder`; returns the file of results."""
    from cocotb_tools.runner import get_runner

    with _simulator():
        # The runner hands sys.path to the simulator as PYTHONPATH, whatever extra_env says.
        sys.path[:0] = [str(Path(bench).parent)]
        return get_runner("verilator").test(
            hdl_toplevel=name,
            hdl_toplevel_lang="verilog",
            test_module=[Path(bench).stem, *modules],
            build_dir=folder,
            test_dir=folder,
            waves=_waves(),
            seed=_seed(),
            results_xml=str(folder / "results.xml"),
            log_file=folder / "run.log",
            extra_env={"NIBBLECORE_BENCH": json.dumps(parameters or {}), **(environment or {})},
        )


@contextmanager
def _simulator() -> Iterator[None]:
    """Verilator's environment; what it and the runner change is put back."""
    saved, saved_path = dict(os.environ), list(sys.path)
    os.environ.update(verilator.environment())
    os.environ["OBJCACHE"] = verilator.launcher(headers=True)
    try:
        yield
    finally:
        sys.path[:] = saved_path
        os.environ.clear()
        os.environ.update(saved)


def _waves() -> bool:
    return os.environ.get("WAVES") == "1"


def _seed() -> str:
    return os.environ.get("SEED", "1")


def parameters() -> dict[str, Any]:
    """The parameters given to `run`, inside the simulator."""
    return json.loads(os.environ["NIBBLECORE_BENCH"])


async def start(dut: Any) -> None:
    """Start the clock and reset the design; returns just after the first rising edge out of reset."""
    Clock(dut.clk, 10, "ns").start()
    await reset(dut)


async def reset(dut: Any, cycles: int = 2) -> None:
    dut.rst.value = 1
    for _ in range(cycles):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)


def always() -> Iterator[bool]:
    while True:
        yield True


def mostly(probability: float, seed: int | str) -> Iterator[bool]:
    """True with the given probability, from a generator of its own."""
    rng = random.Random(seed)
    while True:
        yield rng.random() < probability


def bursts(length: int, gap: int) -> Iterator[bool]:
    """`length` times True, `gap` times False, for ever."""
    while True:
        yield from [True] * length
        yield from [False] * gap


PATTERNS: dict[str, Callable[[int | str], Iterator[bool]]] = {
    "always": lambda seed: always(),
    "random": lambda seed: mostly(0.5, seed),
    "rare": lambda seed: mostly(0.1, seed),
    "bursts": lambda seed: bursts(7, 3),
}
"""Named idle and back-pressure patterns; cross them over the streams of a bench."""


async def send(dut: Any, port: str, payloads: Iterable[int], pattern: Iterator[bool] | None = None) -> None:
    """Drive every payload into stream `port`, valid when `pattern` says so and then held until taken."""
    pattern = pattern or always()
    valid, ready, payload = (getattr(dut, f"{port}__{part}") for part in ("valid", "ready", "payload"))
    for item in payloads:
        while not next(pattern):
            valid.value = 0
            await RisingEdge(dut.clk)
        valid.value, payload.value = 1, item
        while True:
            await ReadOnly()
            taken = int(ready.value)
            await RisingEdge(dut.clk)
            if taken:
                break
    valid.value = 0


async def receive(dut: Any, port: str, count: int, pattern: Iterator[bool] | None = None) -> list[int]:
    """Take `count` payloads from stream `port`, ready when `pattern` says so; checks that a payload holds until taken."""
    pattern = pattern or always()
    valid, ready, payload = (getattr(dut, f"{port}__{part}") for part in ("valid", "ready", "payload"))
    taken: list[int] = []
    waiting: int | None = None
    while len(taken) < count:
        is_ready = next(pattern)
        ready.value = int(is_ready)
        await ReadOnly()
        is_valid, value = int(valid.value), int(payload.value)
        if waiting is not None:
            assert is_valid and value == waiting, f"{port}: valid payload {waiting:#x} withdrawn or changed before it was taken"
        waiting = value if is_valid and not is_ready else None
        if is_valid and is_ready:
            taken.append(value)
        await RisingEdge(dut.clk)
    ready.value = 0
    return taken


def pack(values: Iterable[int], bits: int) -> int:
    """Lanes into one integer, the first value least significant."""
    word = 0
    for lane, value in enumerate(values):
        word |= (int(value) & ((1 << bits) - 1)) << (lane * bits)
    return word


def unpack(word: int, bits: int, lanes: int, *, signed: bool = False) -> list[int]:
    values = [(int(word) >> (lane * bits)) & ((1 << bits) - 1) for lane in range(lanes)]
    return [value - (1 << bits) if signed and value >> (bits - 1) else value for value in values]
