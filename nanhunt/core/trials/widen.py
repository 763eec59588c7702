"""Remedies that use float32: one call, one module, a set of modules, the whole step."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nanhunt.core.causes.half import birth_of
from nanhunt.core.causes.scene import Scene
from nanhunt.core.program.casts import MAY_CAST_TO_HALF
from nanhunt.core.program.target import Target
from nanhunt.core.program.torch_calls import Call
from nanhunt.core.tensors.dtypes import HALVES, dtype_name
from nanhunt.core.trials.patches import in_float32, in_float32_and_back
from nanhunt.core.trials.remedy import (
    ONE_MODULE,
    WHOLE_STEP,
    WIDER_CALL,
    Remedy,
    Scope,
    at,
    call_to_blame,
    function_name,
    of_calls,
)
from nanhunt.core.trials.snippets import (
    Edit,
    Expression,
    code,
    expression_of,
    replaced,
    under_autocast_off,
)
from nanhunt.torch_private import buffers_in, parameters_in

OUTSIDE = "(outside the model)"


def call_in_float32(scene: Scene, target: Target) -> Remedy | None:
    """The one call on float32 inputs, autocast off; a cast to half is left out."""
    return _wide_call(target, call_to_blame(scene))


def call_in_float32_and_back(scene: Scene, target: Target) -> Remedy | None:
    """The one call in float32, its result cast back to what it was."""
    call = call_to_blame(scene)
    dtype = scene.culprit.dtype if scene.culprit is not None else None
    if (
        call is None
        or call.site is None
        or dtype not in HALVES
        or function_name(call) in MAY_CAST_TO_HALF
    ):
        return None

    def edit(scope: Scope) -> Edit | None:
        expression = expression_of(call)
        text = _widened(expression, scope)
        return replaced(expression, f"{text}.to({dtype})" if text and not call.autocast else None)

    title = f"`{function_name(call)}` in float32, its result cast back to {dtype_name(dtype)}"
    rewrite = in_float32_and_back(dtype)
    return of_calls(target, title, WIDER_CALL, at(call.site), rewrite, edit)


def birth_in_float32(scene: Scene, target: Target) -> Remedy | None:
    """The operation that made ComplexHalf, on float32 parts."""
    evidence = scene.main
    born = birth_of(scene, evidence) if evidence is not None else None
    if born is None or born.call is None or born.call == call_to_blame(scene):
        return None
    return _wide_call(target, born.call)


def maker_in_float32(scene: Scene, target: Target) -> Remedy | None:
    """The cast that made the operation's input half, left out."""
    if scene.culprit is None:
        return None
    for made, operand in scene.ancestors(scene.culprit, depth=8):
        name = function_name(made.call)
        if (
            operand.dtype in HALVES
            and name in MAY_CAST_TO_HALF
            and made.call != call_to_blame(scene)
        ):
            return _wide_call(target, made.call)
    return None


def _wide_call(target: Target, call: Call | None) -> Remedy | None:
    if call is None or call.site is None:
        return None
    name = function_name(call)
    title = f"without the cast `{name}`" if name in MAY_CAST_TO_HALF else f"`{name}` in float32"

    def edit(scope: Scope) -> Edit | None:
        expression = expression_of(call)
        if expression is None:
            return None
        if name in MAY_CAST_TO_HALF:
            return replaced(expression, _uncast(expression))
        text = _widened(expression, scope)
        if call.autocast is not None:
            return under_autocast_off(expression, text, call.autocast[0])
        return replaced(expression, text)

    return of_calls(target, title, WIDER_CALL, at(call.site), in_float32, edit)


def _widened(expression: Expression | None, scope: Scope) -> str | None:
    if expression is None or scope.patch is None:
        return None
    changes: dict[int, Callable[[str], str]] = {
        p: _single if d != torch.complex32 else _complex64 for p, d in scope.patch.halves.items()
    }
    return expression.with_arguments(changes)


def _single(text: str) -> str:
    return f"{text}.float()"


def _complex64(text: str) -> str:
    return f"{text}.to(torch.complex64)"


def _uncast(expression: Expression) -> str | None:
    value = expression.argument(0)
    if value is None:
        return None
    text = expression.written(value)
    return f"{text}.float()" if text.isidentifier() else f"({text}).float()"


# -- modules ------------------------------------------------------------------------------------


def modules_in_float32(target: Target, names: Iterable[str], optimizers: list[Optimizer]) -> Remedy:
    """What these modules compute themselves runs in float32; their children are not meant."""
    chosen = frozenset(names)

    def applies(_: Call, module: str | None) -> bool:
        return (OUTSIDE if module is None else module) in chosen

    inner = of_calls(target, _title(chosen), ONE_MODULE, applies, in_float32)

    def enter(scope: Scope) -> None:
        inner.enter(scope)
        scope.callback(_to_float32(target, chosen))
        _widen_state(optimizers)

    def edit(scope: Scope) -> Edit | None:
        return _island_code(target, sorted(chosen - {OUTSIDE}), scope)

    return Remedy(inner.title, ONE_MODULE, enter, edit)


def step_in_float32(target: Target, optimizers: list[Optimizer]) -> Remedy:
    """The whole step in float32, autocast off everywhere."""
    everything = [*dict.fromkeys(filter(None, map(target.module_name, target.modules.values())))]
    names = frozenset({*everything, "", OUTSIDE})
    inner = of_calls(target, "the whole step in float32", WHOLE_STEP, lambda *_: True, in_float32)

    def enter(scope: Scope) -> None:
        inner.enter(scope)
        scope.callback(_to_float32(target, names))
        _widen_state(optimizers)

    return Remedy(inner.title, WHOLE_STEP, enter, lambda _: _whole_step_code())


def _title(names: frozenset[str]) -> str:
    shown = sorted("the root module" if name == "" else name for name in names)
    if len(shown) > 3:
        return f"{len(shown)} modules in float32"
    return f"{', '.join(shown)} in float32"


def _to_float32(target: Target, names: Iterable[str]) -> Callable[[], None]:
    """Makes half-precision parameters and buffers of modules single; returns how to undo it."""
    undo: list[Callable[[], None]] = []
    wanted = set(names)
    for module in target.modules.values():
        if target.module_name(module) in wanted:
            halves = [p for p in parameters_in(module).values() if p is not None and _is_half(p)]
            undo += [_widen_parameter(parameter) for parameter in halves]
            undo += [_widen_buffer(module, k) for k, b in buffers_in(module).items() if _is_half(b)]

    def put_back() -> None:
        for action in reversed(undo):
            action()

    return put_back


def _is_half(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.dtype in HALVES


def _widen_parameter(parameter: Tensor) -> Callable[[], None]:
    data, grad = parameter.data, parameter.grad
    parameter.grad = None
    parameter.data = data.float()
    if grad is not None:
        parameter.grad = grad.float()

    def put_back() -> None:
        parameter.grad = None
        parameter.data = data
        parameter.grad = grad

    return put_back


def _widen_buffer(module: nn.Module, key: str) -> Callable[[], None]:
    buffer = buffers_in(module)[key]
    assert buffer is not None
    buffers_in(module)[key] = buffer.float()

    def put_back() -> None:
        buffers_in(module)[key] = buffer

    return put_back


def _widen_state(optimizers: list[Optimizer]) -> None:
    """Casts an optimizer's state to the dtype of its parameters; a restore undoes it."""
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            if not isinstance(state, dict) or not isinstance(parameter, Tensor):
                continue
            for key, value in state.items():
                if isinstance(value, Tensor) and _is_half(value) and not _is_half(parameter):
                    state[key] = value.float()


def _island_code(target: Target, names: list[str], scope: Scope) -> Edit | None:
    """What to write after the model is built, and what to leave out in the modules' own code."""
    if not names or scope.patch is None:
        return None
    call = scope.patch.last
    device = call.autocast[0] if call is not None and call.autocast is not None else None
    lines = ["# after the model is built", "for island in ("]
    lines += [f"    {module_expression(target, name)}," for name in names]
    lines += ["):", "    island.float()"]
    if device is not None:
        off = f'torch.autocast("{device}", enabled=False)'
        lines.append(f"    island.forward = {off}(island.forward)")
    lines += [
        "    island.register_forward_pre_hook(lambda _, args: tuple(",
        "        a.float() if torch.is_tensor(a) and a.is_floating_point() else a for a in args))",
    ]
    lines += [f"# and leave out the cast{place}" for place in scope.patch.casts]
    return code(lines)


def module_expression(target: Target, name: str) -> str:
    """How to get at a module, e.g. `model["generator"].get_submodule("mask.head")`."""
    root = next((key for key in target.roots if name == key or name.startswith(f"{key}.")), "")
    start = f'model["{root}"]' if root else "model"
    path = name[len(root) :].lstrip(".")
    return f'{start}.get_submodule("{path}")' if path else start


def _whole_step_code() -> Edit:
    return code(
        [
            "model.float()  # after the model is built",
            "# and no torch.autocast, no .half() in the step",
        ]
    )
