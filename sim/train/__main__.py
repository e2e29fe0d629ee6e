"""``python -m nibblecore.sim.train``: the digits."""

import sys

from .digits import main

sys.exit(main())
