"""``python -m nibblecore.sim.train [--machine ltoaq|cambriconq] …``: the digits."""

import argparse
import sys

from . import cambriconq, digits


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--machine", choices=("ltoaq", "cambriconq"), default="ltoaq")
    chosen, rest = parser.parse_known_args()
    return (cambriconq if chosen.machine == "cambriconq" else digits).main(rest)


sys.exit(main())
