"""Memory of this machine, total and used by the gateway. Reads the system; knows no route."""

from __future__ import annotations

import os
import resource
import sys

from adapters.sdapi.response_schemas import Memory


def memory(engine_bytes: int) -> Memory:
    """The memory in bytes; `used` is that of the gateway and of the model in the engine.

    Source: A1111 1.10.1 get_memory: free is total less what A1111 itself uses; `cuda` as it answers without CUDA.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    used = min(total, resident_bytes() + engine_bytes)
    return {"ram": {"free": total - used, "used": used, "total": total}, "cuda": {"error": "unavailable"}}


def resident_bytes() -> int:
    """Resident bytes of this process; on systems without /proc, the peak so far."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
