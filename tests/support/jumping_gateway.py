"""A gateway whose clock is wrong: `python tests/support/jumping_gateway.py FILE [its own words]`.

FILE holds the seconds by which dates are ahead, and may change at any time.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    ahead = Path(sys.argv.pop(1))
    right = time.time
    time.time = lambda: right() + float(ahead.read_text() or 0)
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from api_main import main

    main()
