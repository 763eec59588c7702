"""A preflight and a comparison made by hand, for the renderers."""

from __future__ import annotations

from nanhunt.comparison import Comparison, OpSide, Pair
from nanhunt.facts import AutocastRegion, Fact, ModuleFacts, ParameterCount, Preflight
from nanhunt.report import Source

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
