"""What counts as a problem, as data: id, meaning, and where the rule and its numbers come from."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ProblemKind:
    """One kind of problem that a checkpoint can have.

    Attributes:
        id: what `Problem.kind` says.
        meaning: one sentence.
        source: where it comes from.
    """

    id: str
    meaning: str
    source: str


# A tensor this many times larger or smaller than the median of its sisters stands out ...
OUTLIER = 64.0
# ... if three quarters of them lie within this factor of the median, and there are enough.
ALIKE, ENOUGH = 8.0, 4

RULES: tuple[ProblemKind, ...] = (
    ProblemKind(
        "not_finite",
        "A tensor holds NaN or Inf.",
        "IEEE 754: neither ever becomes finite again by adding, multiplying or averaging.",
    ),
    ProblemKind(
        "mask",
        "A tensor holds -Inf and zeros alone: an attention mask, as written.",
        "torch.nn.Transformer.generate_square_subsequent_mask writes one like it.",
    ),
    ProblemKind(
        "variance_negative",
        "A running variance is negative: eval() takes the root of it.",
        "torch.nn.functional.batch_norm divides by sqrt(running_var + eps).",
    ),
    ProblemKind(
        "variance_zero",
        "A running variance is 0: only eps keeps the output finite.",
        "As above; with the default eps of 1e-5 the channel is multiplied by 316.",
    ),
    ProblemKind(
        "batch_count",
        "num_batches_tracked does not go with the statistics beside it.",
        "torch.nn.modules.batchnorm counts every batch in train mode from 0 on; with "
        "momentum=None the count is the divisor.",
    ),
    ProblemKind(
        "statistics_in_half",
        "Running statistics are kept in float16: they overflow from 65,504 on.",
        "torch.finfo; the variance of values around 256 is already there.",
    ),
    ProblemKind(
        "beyond_dtype",
        "A tensor holds values that a smaller dtype in common use cannot.",
        "torch.finfo: float16 ends at 65,504, float32 at 3.4e38.",
    ),
    ProblemKind(
        "second_moment_negative",
        "An average of squares is negative: the optimizer takes the root of it.",
        "torch.optim.adam: exp_avg_sq.sqrt(); likewise RMSprop, Adadelta, Adamax.",
    ),
    ProblemKind(
        "optimizer_step",
        "A parameter's count of updates is negative or not finite.",
        "torch.optim.adam: bias_correction1 = 1 - beta1 ** step.",
    ),
    ProblemKind(
        "optimizer_setting",
        "An option of an optimizer is not finite.",
        "torch.optim: every update is multiplied by the learning rate, or divided by eps.",
    ),
    ProblemKind(
        "loss_scale",
        "The loss scale of a GradScaler is 0, negative, not finite, or too small to be inverted.",
        "torch.amp.GradScaler.unscale_ multiplies by 1 / scale in float32; 0 and Inf stay what "
        "they are under backoff and growth.",
    ),
    ProblemKind(
        "scale_outlier",
        "A weight is far larger or smaller than the same weight of its sister layers.",
        "Own choice: 64 times off the median of at least four tensors of one shape, three "
        "quarters of which lie within 8 times of it.",
    ),
    ProblemKind(
        "complex_half",
        "A tensor is stored as torch.complex32, which few operations can take.",
        "torch warns of it: ComplexHalf support is experimental.",
    ),
    ProblemKind(
        "checksum",
        "Stored bytes do not agree with the file's own checksum.",
        "CRC-32 of the zip archive (PKWARE's APPNOTE.TXT, 4.4.7); torch.load does not compare it.",
    ),
    ProblemKind(
        "file_missing",
        "A file that an index names is not there.",
        "The index is the list of what belongs together.",
    ),
    ProblemKind(
        "file_damaged",
        "The parts of a checkpoint contradict each other.",
        "The format's own description.",
    ),
    ProblemKind(
        "file_refused",
        "A file beside others was not looked at: it would need code to be run.",
        "torch.load's weights_only=True.",
    ),
)
