"""Records other than reports, made by hand, for the renderers."""

from __future__ import annotations

from nanhunt.records.comparison import Comparison, OpSide, Pair
from nanhunt.records.diagnosis import (
    Diagnosis,
    Match,
    Mismatch,
    Problem,
    Repair,
    RepairChange,
    Timeline,
    TimelinePoint,
)
from nanhunt.records.guard import Evaluation, GuardEvent, GuardReport
from nanhunt.records.preflight import AutocastRegion, Fact, ModuleFacts, ParameterCount, Preflight
from nanhunt.records.recalibration import Recalibration
from nanhunt.records.report import Source

LINE = Source("train.py", 12, 'with torch.autocast("cuda"):', "forward")


def preflight(name: str = "encoder.norm") -> Preflight:
    return Preflight(
        title="Net, 1,024 parameters in 4 tensors",
        facts=(
            Fact(
                "complex_half", "warning", f"aten.complex.default makes ComplexHalf in {name}", LINE
            ),
            Fact("parameters_detached", "warning", "2 parameters cut off", LINE, (name, "b")),
            Fact("updates", "info", "1 optimizer update in one call of step_fn"),
        ),
        modules=(
            ModuleFacts("", "Net", 1, (("float32", 3),), 2.0, 127.0),
            ModuleFacts(name, "LayerNorm", 2, (("float16", 5), ("float32", 1)), 4.1e4, 0.7),
        ),
        regions=(
            AutocastRegion("cuda", "float16", True, 2, LINE),
            AutocastRegion("cpu", "bfloat16", False, 1),
        ),
        parameters=(
            ParameterCount("", 1024, 1000, (("float32", 1024),)),
            ParameterCount(name.split(".")[0], 24, 0, (("float16", 24),)),
        ),
        notes=("no snapshot: turned off: the step was not undone",),
    )


def comparison(name: str = "mask.body.0") -> Comparison:
    one = OpSide(
        "aten.addmm.default", "torch.nn.functional.linear", name, (8, 4), "float32", 0.5, LINE
    )
    other = OpSide("aten.addmm.default", one.call, name, (8, 4), "float16", 0.5, LINE)
    cast = OpSide("aten._to_copy.default", one.call, name, (8, 4), "float16", 0.5, LINE)
    spectrum = OpSide(
        "aten._fft_r2c.default", "torch.functional.stft", "", (8, 5), "complex64", 9.0
    )
    dtype = Pair("rounding", one, other, 3e-4, 2e-3)
    value = Pair("different", one, other, 0.3, 2e-3)
    return Comparison(
        "Net against Net",
        dtype,
        value,
        (
            Pair("identical", spectrum, spectrum, 0.0, 1e-6),
            Pair("only in the modified", None, cast),
            dtype,
            value,
            Pair("only in the baseline", cast, None),
        ),
        4,
        (name,),
        "not shared for 1 of 2 calls of the root modules: other shapes",
    )


def diagnosis(name: str = "model.scales.0.ffc.local_conv.1") -> Diagnosis:
    poisoned = "running statistics are not finite: eval() reads them"
    reset = "bad channels reset to mean 0 and variance 1"
    return Diagnosis(
        path=f"runs/{name}.pt",
        layout="torch.save",
        problems=(
            Problem(
                *("not_finite", "critical", "weight", f"{name}.weight", "a weight is not finite"),
                *("", (4, 3), "float32", 2, 0, 1, ((0, 1), (3, 2)), "", "take an earlier file"),
            ),
            *(
                Problem(
                    *("not_finite", "critical", "buffer", f"{name}.{leaf}", poisoned),
                    *("", (512,), "float16", 0, 3, 0, ((7,),), reset, "compute them anew"),
                )
                for leaf in ("running_mean", "running_var")
            ),
            Problem("beyond_dtype", "warning", "weight", f"{name}.bias", "values up to 7e+04"),
        ),
        tensors=318,
        elements=27_100_004,
        nbytes=108_400_016,
        dtypes=(("float32", 27_100_000), ("int64", 4)),
        match=Match(
            name,
            "model",
            (
                Mismatch(
                    *("prefix", "critical", f"the file's names begin with {name!r}", ()),
                    f"state = {{k.removeprefix({name!r}): v for k, v in saved['model'].items()}}",
                ),
                Mismatch("missing", "critical", "the model has 1 key the file lacks", (name,)),
            ),
            *(320, 317, 27_100_000, 27_099_000),
        ),
        repair=Repair(
            f"runs/{name}_FIXED.pt",
            (RepairChange(f"{name}.running_mean", 3, "bad channels reset to 0"),),
            (f"{name}.weight",),
        ),
        notes=(f"{name}.scale: not looked at (dtype F4 is not known here)",),
        seconds=0.25,
    )


def timeline(name: str = "step_000400.pt") -> Diagnosis:
    problem = Problem("loss_scale", "critical", "scaler", "scaler.scale", "the loss scale is 0")
    looks = (
        TimelinePoint("step_000900.pt", False, "scaler.scale: loss scale"),
        TimelinePoint(name, False, "scaler.scale: loss scale"),
        TimelinePoint("step_000300.pt", True, "healthy"),
        TimelinePoint("step_000200.pt", None, f"{name}: the file is empty"),
    )
    order = "the numbers in the names"
    return Diagnosis(
        f"runs/{name}",
        "torch.save",
        (problem,),
        timeline=Timeline(9, order, looks, "step_000300.pt", name),
        seconds=1.5,
    )


def guard(name: str = "norm.running_mean") -> GuardReport:
    many = tuple(f"gradient of layers.{i}.weight" for i in range(5))
    return GuardReport(
        steps=12_043,
        checks=12_043,
        counts={"skipped": 3, "stopped": 1},
        events=(
            GuardEvent(301, ("loss", f"buffer {name}"), "skipped", f"bundles/{name}_301.pt"),
            GuardEvent(302, many, "skipped"),
            GuardEvent(12_042, ("another rank",), "stopped"),
        ),
        stopped=f"bad before the step began: {name}",
        notes=(f"no bundle of step 302: {name}",),
    )


def evaluation(name: str = "norm.running_mean") -> Evaluation:
    return Evaluation(40, 0, 0, tuple(f"{name}{i}" for i in range(7)))


def recalibration(name: str = "encoder.norm") -> Recalibration:
    return Recalibration((name, f"{name}.1"), 1_200, 2)
