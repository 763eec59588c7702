"""nanhunt: find the first value that broke a PyTorch training run.

    report = nanhunt.hunt(model, step_fn)

or, in a notebook, `%load_ext nanhunt` and then `%nanhunt model step_fn`.
Importing this package loads nothing but the standard library; torch and
everything else come in when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nanhunt.checkpoints.doctor import doctor as doctor
    from nanhunt.checkpoints.repair.recalibrate import recalibrate as recalibrate
    from nanhunt.checkpoints.repair.stabilise import stabilise_batch_norm as stabilise_batch_norm
    from nanhunt.checkpoints.save_guard import save_guard as save_guard
    from nanhunt.comparison import Comparison as Comparison
    from nanhunt.core.compare.compare import compare as compare
    from nanhunt.core.guard.evaluation import validate_guard as validate_guard
    from nanhunt.core.guard.later import hunt_bundle as hunt_bundle
    from nanhunt.core.guard.start import guard as guard
    from nanhunt.core.hunting.hunt import hunt as hunt
    from nanhunt.core.hunting.hunt import last_report as last_report
    from nanhunt.core.preflight.preflight import preflight as preflight
    from nanhunt.diagnosis import Diagnosis as Diagnosis
    from nanhunt.errors import NanhuntError as NanhuntError
    from nanhunt.facts import Preflight as Preflight
    from nanhunt.interactive import Hunt as Hunt
    from nanhunt.interactive import last_hunt as last_hunt
    from nanhunt.report import Finding as Finding
    from nanhunt.report import Report as Report
    from nanhunt.report import TensorStats as TensorStats
    from nanhunt.report import load_report as load_report

_HOME = {
    "Hunt": "nanhunt.interactive",
    "last_hunt": "nanhunt.interactive",
    "hunt": "nanhunt.core.hunting.hunt",
    "last_report": "nanhunt.core.hunting.hunt",
    "Comparison": "nanhunt.comparison",
    "compare": "nanhunt.core.compare.compare",
    "Diagnosis": "nanhunt.diagnosis",
    "doctor": "nanhunt.checkpoints.doctor",
    "recalibrate": "nanhunt.checkpoints.repair.recalibrate",
    "guard": "nanhunt.core.guard.start",
    "hunt_bundle": "nanhunt.core.guard.later",
    "save_guard": "nanhunt.checkpoints.save_guard",
    "stabilise_batch_norm": "nanhunt.checkpoints.repair.stabilise",
    "validate_guard": "nanhunt.core.guard.evaluation",
    "NanhuntError": "nanhunt.errors",
    "Preflight": "nanhunt.facts",
    "preflight": "nanhunt.core.preflight.preflight",
    "Finding": "nanhunt.report",
    "Report": "nanhunt.report",
    "TensorStats": "nanhunt.report",
    "load_report": "nanhunt.report",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'nanhunt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(ipython: Any) -> None:
    """Called by `%load_ext nanhunt`."""
    from nanhunt.magics import load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Called by `%unload_ext nanhunt`."""
    from nanhunt.magics import unload

    unload(ipython)
