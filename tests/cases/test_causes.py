"""Every rule of the catalogue is shown at work, and shown to keep silent beside a look-alike."""

from __future__ import annotations

import torch

from nanhunt.core.causes import RULES, explain
from nanhunt.core.causes.scene import Scene
from nanhunt.core.observe.closeup import Closeup
from nanhunt.core.observe.evidence import AtBad, Double, OpEvidence
from nanhunt.core.trials.table import REMEDIES
from nanhunt.core.watch.magnitudes import Growth
from nanhunt.records.report import Finding
from tests.cases import test_cases as suite

NAMED = {case.expected["cause"] for case in suite.FAILING if case.expected}

# Rules that no small CPU program can show; they are shown on evidence made by hand below.
ELSEWHERE = {"half_fft_overflow", "compiler_only", "scaled_twice"}

# A program beside each rule that comes close to it; `test_the_place_is_exact` asserts what each
# of them really is, and a healthy one is asserted to have no finding at all.
LOOK_ALIKES = {
    "compiler_only": "log_of_zero",
    "bad_data": "a_constant_that_is_nan",
    "statistics_bad_before": "a_buffer_of_inf_that_is_used",
    "weights_bad_before": "an_optimizer_state_restored_bad",
    "buffer_bad_before": "a_placeholder_buffer_nobody_reads",
    "optimizer_state_bad_before": "a_second_moment_that_is_negative",
    "gradient_left_bad": "accumulated_over_several_calls",
    "negative_running_variance": "statistics_that_are_inf_in_evaluation",
    "written_constant": "an_overflow_that_becomes_nan_later",
    "uninitialised_memory": "a_placeholder_buffer_nobody_reads",
    "loss_scale_collapsed": "a_scaler_cannot_help",
    "negative_second_moment": "an_optimizer_state_restored_bad",
    "second_moment_overflow": "a_learning_rate_that_explodes",
    "optimizer_epsilon_lost": "an_epsilon_that_is_zero_in_half",
    "scaled_gradients_stepped": "a_learning_rate_that_is_too_high",
    "scaled_twice": "an_optimizer_stepped_without_its_scaler",
    "exploding_update": "one_bad_batch_that_looks_like_an_explosion",
    "update_overflow": "the_second_moment_overflows",
    "buffer_drift": "a_buffer_written_through_data",
    "where_trap": "a_double_where_around_a_root",
    "epsilon_lost_in_gradient": "sqrt_at_zero",
    "sqrt_gradient_at_zero": "guarded_derivatives_at_their_singular_points",
    "log_gradient_at_zero": "the_where_trap_of_a_logarithm",
    "division_gradient_at_zero": "custom_function_backward",
    "power_gradient_at_zero": "zero_to_a_negative_power",
    "arc_gradient_at_one": "acos_beyond_one",
    "hypot_gradient_at_zero": "guarded_derivatives_at_their_singular_points",
    "degenerate_eigenvalues": "a_factor_of_a_singular_matrix",
    "singular_factor": "eigenvectors_of_a_degenerate_matrix",
    "half_gradient_overflow": "a_gradient_that_grows_through_time",
    "gradient_explosion": "a_loss_multiplied_until_half_gradients_overflow",
    "softmax_fully_masked": "fully_masked_rows_that_are_replaced",
    "inf_minus_inf": "an_overflow_that_becomes_nan_later",
    "zero_times_inf": "an_overflow_that_becomes_nan_later",
    "deviation_of_one_element": "mean_of_nothing",
    "all_targets_ignored": "only_targets_that_exist",
    "mean_of_nothing": "zero_by_zero",
    "complex_half_birth": "complex_half_that_overflows",
    "complex_half_overflow": "a_square_in_half_overflows",
    "fft_dc_overflow": "a_cast_beside_a_transform_but_not_of_its_first_bin",
    "half_fft_overflow": "a_cast_to_half_overflows",
    "half_cast_overflow": "a_bright_image_in_half_after_its_transform",
    "attention_scores_overflow": "logits_in_half_that_a_softmax_follows",
    "half_matmul_overflow": "attention_scores_overflow",
    "half_reduction_overflow": "a_square_in_half_overflows",
    "batch_norm_statistics_overflow": "statistics_that_are_nan_while_training_looks_healthy",
    "epsilon_lost": "an_epsilon_that_half_precision_holds",
    "log_of_zero": "log_of_a_negative_late",
    "log_of_negative": "log_of_zero",
    "sqrt_of_negative": "sqrt_at_zero",
    "dead_codebook_entries": "a_mask_as_a_buffer_that_leaves_nothing",
    "normalisation_of_zero": "zero_by_zero",
    "zero_by_zero": "helper_function_deep_below_the_loss",
    "division_by_zero": "zero_by_zero",
    "power_of_negative": "pow_overflows",
    "power_of_zero": "a_root_at_zero",
    "outside_domain": "acos_at_one",
    "exp_overflow": "pow_overflows",
    "half_overflow": "pow_overflows",
    "float32_overflow": "a_square_in_half_overflows",
}


def test_every_rule_is_named_in_a_program_that_fails_for_its_reason() -> None:
    assert {rule.id for rule in RULES} - NAMED - ELSEWHERE == set()


def test_every_rule_keeps_silent_beside_a_look_alike() -> None:
    assert set(LOOK_ALIKES) == {rule.id for rule in RULES}
    for cause, name in LOOK_ALIKES.items():
        expected = suite.CASES[name].expected
        assert expected is None or expected["cause"] != cause, (cause, name)


def test_every_rule_says_what_it_means_and_where_that_comes_from() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.meaning.endswith("."), rule.id
        assert len(rule.source) > 10, rule.id


def test_every_cause_with_remedies_is_in_the_catalogue() -> None:
    assert set(REMEDIES) <= {rule.id for rule in RULES}


def scene_of(evidence: OpEvidence, **finding: object) -> Scene:
    closeup = Closeup(evidence.index, evidence.op, None)
    closeup.main, closeup.seen = evidence, True
    return Scene(finding=Finding("critical", "inf", "forward", 0, **finding), closeup=closeup)


def half_transform(origin: int) -> OpEvidence:
    """A Fourier transform in half precision as a GPU runs it: the CPU has none."""
    return OpEvidence(
        index=0,
        op="aten._fft_r2c.default",
        inputs=(),
        at_bad=(AtBad("self", 3, 0, 0, 0, 0, 0, 0, 0.0, 0.0),),
        double=Double(3, 0, 8e4),
        at_origin=origin,
        dtype=torch.complex32,
    )


def test_a_transform_in_half_is_told_from_its_first_bin() -> None:
    for origin, cause in ((0, "half_fft_overflow"), (2, "fft_dc_overflow")):
        found = explain(scene_of(half_transform(origin)))
        assert found is not None
        assert found[0] == cause


def test_a_loss_scaled_twice_is_told_from_one_scaled_once() -> None:
    for twice, cause in ((True, "scaled_twice"), (False, "exploding_update")):
        scene = scene_of(
            OpEvidence(
                index=0,
                op="aten.mul.Tensor",
                inputs=(),
                double=Double(1, 0, 1e39),
                dtype=torch.float32,
            )
        )
        scene.scaled_twice = twice
        scene.growths = [Growth("parameters", 50.0, 3, 1.0, 1e19)]
        found = explain(scene)
        assert found is not None
        assert found[0] == cause


def test_a_failure_of_the_compiler_alone_is_told_as_such() -> None:
    found = explain(Scene(only_compiled=True))
    assert found is not None
    assert found[0] == "compiler_only"


def test_no_cause_is_named_where_the_evidence_is_missing() -> None:
    bare = OpEvidence(index=0, op="aten.log.default", inputs=(), dtype=torch.float32)
    assert explain(scene_of(bare)) is None
    assert explain(Scene(finding=Finding("critical", "nan", "forward", 0))) is None
