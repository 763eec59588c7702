"""Which tests one worker of pytest-xdist runs together.

Tests that share a kernel, a server or files that are costly to make go to one worker; every other
test goes alone to whoever is free. xdist's own `--dist loadgroup` writes the group into a private
attribute of the test that pytest 9.2 no longer has, and so divides everything.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

# In these files tests share a fixture of the whole file.
TOGETHER = re.compile(
    r"tests/(notebook/.*|doctor/test_(command|shards)|test_(project|compare))\.py"
)
# The panel's tests are divided by the kernel that they run in, the newest of which has the most.
KERNEL = re.compile(r"\[(\d+\.\d+\.\d+)")


class Together(LoadScopeScheduling):
    """Hands out what has to stay together, the largest first, and then the single tests."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if not TOGETHER.fullmatch(file):
            return nodeid
        kernel = KERNEL.search(nodeid)
        return f"{file} {kernel[1]}" if kernel else file
