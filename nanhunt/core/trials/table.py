"""Which remedies a cause suggests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nanhunt.core.causes.scene import Scene
from nanhunt.core.program.target import Target
from nanhunt.core.tensors.dtypes import HALF_NAMES, HALVES
from nanhunt.core.trials import emptiness, nudges, states, widen
from nanhunt.core.trials.remedy import Remedy
from nanhunt.torch_private import buffers_in, parameters_in

Maker = Callable[[Scene, Target], "Remedy | list[Remedy] | None"]

_WIDEN: tuple[Maker, ...] = (
    widen.call_in_float32_and_back,
    widen.call_in_float32,
    widen.maker_in_float32,
)
_LARGE_UPDATE: tuple[Maker, ...] = (
    states.clipped_gradients,
    states.smaller_rates,
    states.clipped_since_the_step_before,
    states.smaller_rates_since_the_step_before,
)
_AT_ZERO: tuple[Maker, ...] = (nudges.clamp_input, nudges.add_epsilon)
_DIVISOR: tuple[Maker, ...] = (
    nudges.epsilon_under_root,
    nudges.clamp_divisor,
    nudges.safe_divisor,
)

REMEDIES: dict[str, tuple[Maker, ...]] = {
    # half precision
    "half_cast_overflow": _WIDEN,
    "fft_dc_overflow": _WIDEN,
    "half_fft_overflow": _WIDEN,
    "half_matmul_overflow": _WIDEN,
    "half_reduction_overflow": _WIDEN,
    "half_overflow": _WIDEN,
    "half_gradient_overflow": _WIDEN,
    "attention_scores_overflow": _WIDEN,
    "batch_norm_statistics_overflow": _WIDEN,
    "complex_half_birth": (widen.call_in_float32,),
    "complex_half_overflow": (widen.birth_in_float32, widen.call_in_float32),
    "epsilon_lost": (nudges.larger_epsilon, *_WIDEN),
    "epsilon_lost_in_gradient": (nudges.larger_epsilon, *_WIDEN),
    "exp_overflow": (nudges.clamp_exponent, *_WIDEN),
    # singular points
    "log_of_zero": _AT_ZERO,
    "log_of_negative": _AT_ZERO,
    "sqrt_of_negative": _AT_ZERO,
    "division_by_zero": (*_DIVISOR, *_AT_ZERO),
    "zero_by_zero": _DIVISOR,
    "normalisation_of_zero": _DIVISOR,
    "dead_codebook_entries": _DIVISOR,
    "power_of_negative": _AT_ZERO,
    "power_of_zero": _AT_ZERO,
    "outside_domain": (nudges.clamp_to_domain,),
    # masks and averages over nothing
    "softmax_fully_masked": (emptiness.masked_rows,),
    "zero_times_inf": (),
    "deviation_of_one_element": (emptiness.fewer_degrees,),
    "all_targets_ignored": (emptiness.mean_or_zero,),
    "mean_of_nothing": (emptiness.mean_or_zero, emptiness.count_at_least_one),
    # gradients
    "where_trap": (nudges.safe_where, *_DIVISOR, *_AT_ZERO),
    "sqrt_gradient_at_zero": _AT_ZERO,
    "log_gradient_at_zero": _AT_ZERO,
    "power_gradient_at_zero": _AT_ZERO,
    "division_gradient_at_zero": _DIVISOR,
    "arc_gradient_at_one": (nudges.clamp_to_domain,),
    "hypot_gradient_at_zero": (nudges.away_from_origin,),
    "degenerate_eigenvalues": (nudges.distinct_values,),
    "singular_factor": (nudges.distinct_values,),
    # updates and state
    "update_overflow": _LARGE_UPDATE,
    "exploding_update": _LARGE_UPDATE,
    "scaled_gradients_stepped": (states.through_the_scaler, *_LARGE_UPDATE),
    "gradient_explosion": (
        states.clipped_since_the_step_before,
        states.smaller_rates_since_the_step_before,
    ),
    "float32_overflow": (
        states.clipped_since_the_step_before,
        states.smaller_rates_since_the_step_before,
    ),
    "second_moment_overflow": (states.clipped_gradients,),
    "optimizer_epsilon_lost": (states.optimizer_epsilon,),
    "negative_second_moment": (states.forget_optimizer_state,),
    "optimizer_state_bad_before": (states.forget_optimizer_state,),
    "loss_scale_collapsed": (states.loss_scale_of_one,),
    "statistics_bad_before": (states.reset_statistics,),
    "negative_running_variance": (states.reset_statistics,),
    "gradient_left_bad": (states.zero_gradients,),
}


def remedies_for(cause: str, scene: Scene, target: Target) -> list[Remedy]:
    """The remedies that a cause suggests and that this scene allows, least invasive first."""
    found = [r for maker in REMEDIES.get(cause, ()) for r in _listed(maker(scene, target))]
    if is_half_precision(scene):
        found.append(widen.step_in_float32(target, scene.optimizers))
    return sorted(found, key=lambda remedy: remedy.invasiveness)


def _listed(made: Remedy | list[Remedy] | None) -> Iterator[Remedy]:
    if isinstance(made, Remedy):
        yield made
    elif made is not None:
        yield from made


def is_half_precision(scene: Scene) -> bool:
    """Whether the operation to blame worked on half-precision numbers."""
    evidence = scene.culprit
    if evidence is None:
        return False
    return any(stats.dtype in HALF_NAMES for stats in (*evidence.inputs, *evidence.outputs))


def half_modules(scene: Scene, target: Target) -> list[str]:
    """Modules that computed something in half precision, or hold half-precision tensors."""
    places = scene.closeup.half_places if scene.closeup is not None else {}
    names = [widen.OUTSIDE if place is None else place for place in places]
    for module in target.modules.values():
        own = [*parameters_in(module).values(), *buffers_in(module).values()]
        if any(tensor is not None and tensor.dtype in HALVES for tensor in own):
            names.append(target.module_name(module) or "")
    return list(dict.fromkeys(names))
