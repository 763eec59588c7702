"""Where in a step the user's own exception came from, as one note."""

from __future__ import annotations

from torch import nn

from nanhunt.core.observe.observer import Activity
from nanhunt.core.program.target import Target
from nanhunt.torch_private import ENGINE


def whence(error: BaseException, step: int, target: Target, activity: Activity) -> str:
    """Says in which step, phase and module an exception was raised."""
    phase = "forward"
    module: str | None = None
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name == ENGINE:
            phase = "backward"
        elif frame.f_code.co_name == "profile_hook_step":
            phase = "optimizer"
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            module = target.module_name(owner) or module
        traceback = traceback.tb_next
    if activity.optimizer:
        phase = "optimizer"
    where = "" if module is None else f", module {module!r}" if module else ", the root module"
    return f"nanhunt: raised in step {step} ({phase}{where})"


def add_note(error: BaseException, note: str) -> None:
    """Puts a note under an exception's traceback."""
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:  # Python 3.10 has no add_note; tracebacks there do not show notes
        error.__notes__ = [note]  # type: ignore[attr-defined]
