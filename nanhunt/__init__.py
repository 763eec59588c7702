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
    from nanhunt.core.compare.compare import compare as compare
    from nanhunt.core.guard.evaluation import validate_guard as validate_guard
    from nanhunt.core.guard.later import hunt_bundle as hunt_bundle
    from nanhunt.core.guard.start import guard as guard
    from nanhunt.core.hunting.ledger import last_report as last_report
    from nanhunt.core.preflight.preflight import preflight as preflight
    from nanhunt.errors import NanhuntError as NanhuntError
    from nanhunt.interactive import Hunt as Hunt
    from nanhunt.interactive import hunt as hunt
    from nanhunt.interactive import last_hunt as last_hunt
    from nanhunt.records.comparison import Comparison as Comparison
    from nanhunt.records.diagnosis import Diagnosis as Diagnosis
    from nanhunt.records.preflight import Preflight as Preflight
    from nanhunt.records.report import Finding as Finding
    from nanhunt.records.report import Report as Report
    from nanhunt.records.report import TensorStats as TensorStats
    from nanhunt.records.report import load_report as load_report

_HOME = {
    "Hunt": "nanhunt.interactive",
    "last_hunt": "nanhunt.interactive",
    "hunt": "nanhunt.interactive",
    "last_report": "nanhunt.core.hunting.ledger",
    "Comparison": "nanhunt.records.comparison",
    "compare": "nanhunt.core.compare.compare",
    "Diagnosis": "nanhunt.records.diagnosis",
    "doctor": "nanhunt.checkpoints.doctor",
    "recalibrate": "nanhunt.checkpoints.repair.recalibrate",
    "guard": "nanhunt.core.guard.start",
    "hunt_bundle": "nanhunt.core.guard.later",
    "save_guard": "nanhunt.checkpoints.save_guard",
    "stabilise_batch_norm": "nanhunt.checkpoints.repair.stabilise",
    "validate_guard": "nanhunt.core.guard.evaluation",
    "NanhuntError": "nanhunt.errors",
    "Preflight": "nanhunt.records.preflight",
    "preflight": "nanhunt.core.preflight.preflight",
    "Finding": "nanhunt.records.report",
    "Report": "nanhunt.records.report",
    "TensorStats": "nanhunt.records.report",
    "load_report": "nanhunt.records.report",
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
    from nanhunt.notebook.magics import load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Called by `%unload_ext nanhunt`."""
    from nanhunt.notebook.magics import unload

    unload(ipython)
