"""Inside the simulator: a process of its own for each fault.

What takes long, to start Python and import what a bench imports, is done once. `mutate` names this file as the last of the files with cocotb
tests; it holds none, and when it is imported nothing has been simulated. The process that imports it stays here and lets a copy of itself go
on for each fault, one after the other.
"""

import atexit
import json
import os
import signal
import sys
import time
from pathlib import Path
from xml.etree import ElementTree


def _outcome(results: Path) -> tuple[str, int]:
    """The cocotb test that failed, or that there are no results; "" if all passed. With the cycles it took."""
    if not results.exists():
        return "the simulation broke off", 0
    cases = [*ElementTree.parse(results).getroot().iter("testcase")]
    failed = [case.get("name", "") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    stops = [float(item.get("value", 0)) for case in cases for item in case.iter("property") if item.get("name") == "sim_time_stop"]
    return (failed[0] if failed else "" if cases else "no test ran"), int(max(stops, default=0)) // 10


def _late(*_: object) -> None:
    raise TimeoutError


def wait(child: int, limit: float) -> int | None:
    """Its status; None if it did not end in time and was ended."""
    before = signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        return os.waitpid(child, 0)[1]
    except TimeoutError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _main() -> None:
    """Returns in the copies only."""
    job = json.loads(os.environ["MUTANTS_JOB"])
    results = Path(os.environ["COCOTB_RESULTS_FILE"])
    cycles, seconds = 0, 60.0
    # 0 is no fault; it says how long a run takes, and has to pass.
    for number in (0, *job["faults"]):
        results.unlink(missing_ok=True)
        sys.stdout.flush()
        started = time.monotonic()
        child = os.fork()
        if not child:
            os.environ |= {"MUTANT": str(number), "MUTANT_CYCLES": str(3 * cycles + 1000 if number else 0)}
            # Verilator's threads are not in the copy: to wait for them at the end would take for ever.
            atexit.register(os._exit, 0)
            return
        limit = 10 * seconds + 10
        ended = wait(child, limit) is not None
        took = time.monotonic() - started
        found, passed = _outcome(results) if ended else (f"no end within {limit:.0f} s", 0)
        if not number:
            cycles, seconds = passed, took
        with open(job["results"], "a") as lines:
            lines.write(json.dumps({"fault": number, "call": job["call"], "found": found, "seconds": round(took, 2)}) + "\n")
        if not number and found:
            break
    os._exit(0)


if "MUTANTS_JOB" in os.environ:
    _main()
