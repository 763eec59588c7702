"""Device types that have an autocast of their own."""

from __future__ import annotations

# All of them: what a new thread has to enter again.
AUTOCAST = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia")
# Those asked at every call of a torch function, where each costs about a microsecond; the
# accelerators that PyTorch's own builds come with.
COMMON_AUTOCAST = ("cpu", "cuda", "mps", "xpu")
