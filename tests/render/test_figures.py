"""Figures say what the histograms hold, and are safe to make in any thread."""

from __future__ import annotations

import threading

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import nanhunt
from nanhunt.core.tensors.binning import histogram
from nanhunt.errors import UsageError
from nanhunt.render import figures


def texts(figure: Figure) -> str:
    from matplotlib.text import Text

    return " | ".join(text.get_text() for text in figure.findobj(Text))


def trained(steps: int = 3) -> nanhunt.Hunt:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.randn(16, 4)).pow(2).mean().backward()
        optimizer.step()

    hunt = nanhunt.Hunt(model, step)
    hunt.statistics = True
    hunt.run(steps)
    return hunt


def test_bars_are_the_counts_of_the_bins_by_sign() -> None:
    counted = histogram(torch.tensor([1.0, 1.5, -1.0, 4.0, -0.25]))
    axes = figures.activity(counted, "t").axes[0]
    heights = {(round(bar.get_x() + 0.45), bar.get_height()) for bar in axes.patches}
    assert {(0, 2), (0, -1), (2, 1), (-2, -1)} <= heights


def test_what_is_not_finite_and_what_was_sampled_is_told_in_the_picture() -> None:
    tensor = torch.randn(5000)
    tensor[:3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    counted = histogram(tensor, sampled_beyond=1000)
    assert 500 < counted.binned <= 1000
    told = texts(figures.activity(counted, "t"))
    assert "1 NaN, 1 +Inf, 1 -Inf" in told
    assert f"a sample of {counted.binned}" in told
    assert "5,000 numbers, float32" in told
    assert all(name in told for name in ("float16", "bfloat16", "f8 e4m3fn", "f8 e5m2"))


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_the_ranges_drawn_are_those_of_the_dtypes(name: str) -> None:
    dtype = getattr(torch, name)
    least, most = figures.RANGES[name]
    assert 2.0**most <= torch.finfo(dtype).max < 2.0 ** (most + 1)
    assert torch.tensor(2.0**least, dtype=torch.float64).to(dtype).double() > 0
    assert torch.tensor(2.0 ** (least - 2), dtype=torch.float64).to(dtype).double() == 0


def test_every_picture_of_a_hunt_is_a_figure_and_shows_itself() -> None:
    with trained() as hunt:
        plot = hunt.plot
        for figure in (
            plot.activations("0"), plot.gradients("0"), plot.weights("0"), plot.batch_norm("1"),
            plot.history("2"), plot.history("2", of="gradient"), plot.timeline(),
        ):  # fmt: skip
            assert isinstance(figure, Figure)
            assert figure._repr_png_().startswith(b"\x89PNG")


def test_batch_norm_compares_the_running_statistics_with_the_batch_s_own() -> None:
    with trained(1) as hunt:
        four = {kind: hunt.gauges.last.get(kind, "1") for kind in ("batch_mean", "batch_var")}
        assert all(counted.numel == 8 for counted in four.values())
        assert "running" in texts(hunt.plot.batch_norm("1"))
        with pytest.raises(UsageError, match="no BatchNorm layer"):
            hunt.plot.batch_norm("0")


def test_statistics_of_a_batch_are_those_that_torch_computes() -> None:
    torch.manual_seed(0)
    layer, x = nn.BatchNorm1d(5), torch.randn(64, 5) * 3 + 2
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)

    def step() -> None:
        layer(x).sum().backward()
        optimizer.step()

    with nanhunt.Hunt(layer, step) as hunt:
        hunt.statistics = True
        hunt.step(examine=False)
        last = hunt.gauges.last
    variance, mean = torch.var_mean(x, 0, correction=0)
    assert last.get("batch_mean", "").high == pytest.approx(mean.max().item(), rel=1e-5)
    assert last.get("batch_var", "").low == pytest.approx(variance.min().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda plot: plot.activations("nowhere"), "no module is called 'nowhere'"),
        (lambda plot: plot.weights("2"), "has no parameters"),
        (lambda plot: plot.timeline(of="weights"), "of must be one of"),
    ],
)
def test_what_cannot_be_drawn_is_said(ask: object, told: str) -> None:
    with trained(1) as hunt, pytest.raises(UsageError, match=told):
        ask(hunt.plot)  # type: ignore[operator]


def test_before_anything_was_measured_the_message_says_how() -> None:
    model = nn.Linear(2, 1)
    with nanhunt.Hunt(model, lambda: None) as hunt, pytest.raises(UsageError, match="statistics"):
        hunt.plot.activations()


def test_a_page_s_picture_has_the_colour_of_its_text_and_escapes_names() -> None:
    counted = histogram(torch.randn(10))
    figure = figures.activity(counted, "<b>&", figures.PAGE_INK)
    text = figures.svg(figure, '<b>&"')
    assert text.startswith('<svg role="img" aria-label="&lt;b>&amp;&quot;"')
    assert "currentColor" in text
    assert figures.PAGE_INK not in text


def test_figures_made_in_many_threads_at_once_are_all_right() -> None:
    counted = [histogram(torch.full((n + 1,), 2.0**n)) for n in range(8)]
    found: dict[int, str] = {}

    def draw(n: int) -> None:
        figure = figures.activity(counted[n], str(n))
        figures.svg(figure, "t")
        found[n] = texts(figure)

    for n in range(8):
        draw(n)
    expected = [found.pop(n) for n in range(8)]

    threads = [threading.Thread(target=draw, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(8)] == expected
