"""One thread, one seed, and a check after every test that nothing stays installed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch.amp import GradScaler
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.data.dataloader import _BaseDataLoaderIter

torch.set_num_threads(1)


def installed() -> dict[str, object]:
    """Everything that a hunt could leave behind, in a form that can be compared."""
    return {
        "module hooks": [
            len(getattr(module_hooks, name))
            for name in (
                "_global_forward_pre_hooks",
                "_global_forward_hooks",
                "_global_forward_hooks_always_called",
                "_global_backward_hooks",
                "_global_backward_pre_hooks",
            )
        ],
        "optimizer hooks": [
            len(optimizer_hooks._global_optimizer_pre_hooks),
            len(optimizer_hooks._global_optimizer_post_hooks),
        ],
        "backward": torch.autograd.backward,
        "scaler": [GradScaler.__dict__[name] for name in ("scale", "step", "unscale_", "update")],
        "data loader": _BaseDataLoaderIter.__next__,
        "dispatch modes": len(_get_current_dispatch_mode_stack()),
        "function modes": len(_get_current_function_mode_stack()),
        "grad mode": torch.is_grad_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        "default dtype": torch.get_default_dtype(),
    }


@pytest.fixture(autouse=True)
def nothing_stays_installed() -> Iterator[None]:
    """Fails a test after which anything is still attached."""
    torch.manual_seed(0)
    before, threads = installed(), set(threading.enumerate())
    yield
    assert installed() == before
    left = [t for t in threading.enumerate() if t not in threads and "nanhunt" in t.name.lower()]
    assert not left
