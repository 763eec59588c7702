"""What must be known about single aten operations, as data, each entry with its reason.

Names are those of the overload packet (`aten.masked_fill`), so that every overload is meant.
Source for mutation and aliasing: the operators' own schemas (native_functions.yaml); only what
these do not say stands here.
"""

from __future__ import annotations

# Casts, as autograd passes them on.
CASTS = frozenset({"aten._to_copy", "aten.copy_"})
# In inference mode nothing takes `to` apart before it is seen.
CASTS_IN_INFERENCE_TOO = CASTS | {"aten.to"}

# Writes constants the user wrote down: an Inf born here was put there on purpose (a mask).
WRITES_CONSTANTS = frozenset(
    f"aten.{name}"
    for name in (
        "fill",  # x.fill_(-inf)
        "fill_",
        "full",
        "full_like",
        "new_full",
        "masked_fill",  # scores.masked_fill(mask, -inf)
        "masked_fill_",
        "index_fill",
        "index_fill_",
        "constant_pad_nd",  # F.pad(x, value=-inf)
    )
)

# Makes a tensor out of numbers in the program: `torch.tensor(nan)`, `x[0] = inf`,
# `torch.where(mask, x, -inf)`. More than one number is an array: `torch.from_numpy(a)`.
LITERALS = frozenset({"aten.lift_fresh", "aten.lift_fresh_copy", "aten.scalar_tensor"})

# Returns memory that nobody has written yet: whatever it holds means nothing.
UNINITIALISED = frozenset(
    f"aten.{name}"
    for name in (
        "empty",
        "empty_like",
        "empty_strided",
        "empty_permuted",
        "new_empty",
        "new_empty_strided",
        "resize_",
        "resize",
        "set_",
    )
)

# Turns an infinite mask into NaN as a known hazard of masking: the mask itself is innocent.
# Elsewhere (a norm, a convolution) an Inf that somebody wrote is the thing to report.
TURNS_MASKS = frozenset(
    f"aten.{name}"
    for name in (
        "_softmax",
        "_log_softmax",
        "_safe_softmax",
        "_softmax_backward_data",
        "_log_softmax_backward_data",
        "logsumexp",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_attention_math",
        "_masked_softmax",
        "_native_multi_head_attention",
        "_transformer_encoder_layer_fwd",
        "sub",
        "sub_",
        "add",
        "add_",
        "mul",
        "mul_",
        "div",
        "div_",
        "cumsum",
        "logcumsumexp",
        "logaddexp",
    )
)

# Changes the sign of a mask's -Inf because the program says so: by itself, or by a number.
NEGATES = frozenset({"aten.neg", "aten.neg_", "aten._foreach_neg", "aten._foreach_neg_"})
SCALES = frozenset({"aten.mul", "aten.mul_", "aten.div", "aten.div_", "aten.rsub"})

# Reads a value to decide something in Python: an honest place to look when a loop skips a step.
PREDICATES = frozenset(
    f"aten.{name}"
    for name in ("_local_scalar_dense", "isnan", "isinf", "isfinite", "isposinf", "isneginf")
)
# How PyTorch itself asks `isfinite(x)`: it composes `(x == x) * (x.abs() != inf)`.
PREDICATE_PARTS = frozenset({"aten.eq", "aten.ne"})

# A decomposition of `torch.linalg` is two operations: the first returns whether it has worked, as
# a number, and the second raises for that.
RETURNS_CODES = frozenset(
    f"aten.{name}"
    for name in (
        "linalg_cholesky_ex", "linalg_inv_ex", "_linalg_solve_ex", "linalg_lu_factor_ex",
        "linalg_ldl_factor_ex",
    )
)  # fmt: skip
RAISES_FOR_CODES = frozenset({"aten._linalg_check_errors"})

# Asks in which order values stand. Infinities that were written down are meant to be compared.
COMPARISONS = frozenset({"aten.lt", "aten.le", "aten.gt", "aten.ge"})

# Puts a bound in the place of an Inf.
BOUNDS = frozenset(
    f"aten.{name}"
    for name in (
        "clamp", "clamp_", "clamp_min", "clamp_min_", "clamp_max", "clamp_max_",
        "minimum", "maximum",
    )
)  # fmt: skip

# Swallows an overflow so that the result is finite but wrong: 1/Inf is 0, and a replaced
# Inf is somebody's constant. Saturating functions (softmax, tanh, relu6, exp of -Inf) are not here.
SWALLOWS_OVERFLOW = frozenset({"aten.rsqrt", "aten.reciprocal", "aten.nan_to_num"}) | BOUNDS

# Grows so fast that whoever bounds its result counts on it: `exp(t).clamp(max=5)`.
MEANT_TO_BE_BOUNDED = frozenset(
    f"aten.{name}" for name in ("exp", "exp_", "exp2", "expm1", "sinh", "cosh")
)

# Replaces what is not finite: gradients must be looked at before it.
HIDES = frozenset({"aten.nan_to_num", "aten.nan_to_num_"})

# Makes an Inf out of a singular point, not by overflow: log(0), 1/0, atanh(1). A power does
# either, 0 ** -1 or 1e20 ** 2: that is asked of its base.
SINGULAR = frozenset(
    f"aten.{name}"
    for name in (
        "log",
        "log2",
        "log10",
        "log1p",
        "div",
        "div_",
        "reciprocal",
        "rsqrt",
        "atanh",
        "logit",
        "digamma",
        "lgamma",
        "special_xlogy",
        "xlogy",
    )
)

# Mutated arguments that the schema does not declare: position -> why.
# `native_batch_norm` updates the running statistics in place (torch/_refs and the C++ kernel).
HIDDEN_WRITES = {
    "aten.native_batch_norm": (3, 4),
    "aten.cudnn_batch_norm": (3, 4),
    "aten.miopen_batch_norm": (3, 4),
}

# Batch norms by the position of (running_mean, running_var) and of the `training` flag: in
# training mode the output is made from the batch alone and the statistics go to themselves.
BATCH_NORMS = {
    "aten.native_batch_norm": (3, 4, 5),
    "aten.cudnn_batch_norm": (3, 4, 5),
    "aten.miopen_batch_norm": (3, 4, 5),
    "aten._native_batch_norm_legit": (3, 4, 5),
    "aten._batch_norm_with_update": (3, 4, None),
}

# Batch norms that may read the running statistics instead of the batch's own.
EVALUATED_BATCH_NORMS = frozenset({*BATCH_NORMS, "aten._native_batch_norm_legit_no_training"})

SOFTMAXES = frozenset({"aten._softmax", "aten._safe_softmax"})

# Leaves a small number small and a 0 a 0: what lies behind is looked at in its stead.
PASSES_ZERO = frozenset(
    f"aten.{name}"
    for name in (
        "sqrt", "sqrt_", "rsqrt", "pow", "square", "abs", "_to_copy", "clone", "copy_", "neg",
        "expand", "unsqueeze", "squeeze", "view", "_unsafe_view", "t", "transpose", "permute",
        "max", "maximum", "detach",
    )
)  # fmt: skip


def packet(op: str) -> str:
    """`aten.add.Tensor` -> `aten.add`."""
    return op.rsplit(".", 1)[0]
