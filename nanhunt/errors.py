"""Every exception that nanhunt raises on purpose.

    NanhuntError                    anything below
    ├── UsageError                  the call cannot work as written (also a ValueError)
    │   ├── NotAModuleError         `model` is no module, or has no parameters
    │   ├── MetaDeviceError         the model has no storage yet
    │   ├── StepFunctionError       `step_fn` cannot be called as a step
    │   ├── NoBackwardError         the training step never called backward
    │   └── NoOptimizerError        nothing ever updates the parameters
    ├── HuntClosedError             the hunt was closed and cannot be stepped
    ├── HuntBusyError               it, or another one, is inside a step right now
    ├── GuardStoppedError            a guard ended the loop; the state is as it says
    ├── PoisonedStateError          parameters, buffers or optimizer state are not finite already
    ├── CheckpointError             a checkpoint cannot be read
    │   └── CodeNeededError         only by running code that comes with it, which is not done
    └── ReportFormatError           a report file cannot be read

An exception of the user's own step is never wrapped: it is re-raised as it is,
with one note added.
"""

from __future__ import annotations


class NanhuntError(Exception):
    """Base class of every error that nanhunt raises on purpose."""


class UsageError(NanhuntError, ValueError):
    """The call cannot work as written; the message says what to change."""


class NotAModuleError(UsageError, TypeError):
    """`model` is neither a module nor a dict or sequence of modules with parameters."""


class MetaDeviceError(UsageError):
    """The model lives on the meta device and has no values to look at."""


class StepFunctionError(UsageError, TypeError):
    """`step_fn` is not callable, or not with the arguments that a hunt gives it."""


class NoBackwardError(UsageError):
    """A training step ended without calling `backward`."""


class NoOptimizerError(UsageError):
    """No optimizer that holds a parameter of the model could be found."""


class HuntClosedError(NanhuntError, RuntimeError):
    """The hunt was closed; make a new one."""


class HuntBusyError(NanhuntError, RuntimeError):
    """The hunt is running or stands inside a step, and what was asked for needs its end."""


class GuardStoppedError(NanhuntError, RuntimeError):
    """A guard ended the loop, by its policy or because its bound was reached."""


class PoisonedStateError(NanhuntError, RuntimeError):
    """Parameters, buffers or optimizer state are not finite before anything has run."""


class CheckpointError(NanhuntError, ValueError):
    """A checkpoint cannot be read: it is damaged, or of no known format."""


class CodeNeededError(CheckpointError):
    """A checkpoint could be read only by running code that it names; nothing of it was run."""


class ReportFormatError(NanhuntError, ValueError):
    """The text is not a nanhunt report of a known version."""
