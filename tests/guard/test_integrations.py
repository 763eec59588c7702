"""The callbacks inside the real training loops of Lightning, transformers and Accelerate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import accelerate
import lightning.pytorch as lightning
import pytest
import torch
import transformers
from torch import nn

import nanhunt
from nanhunt.errors import GuardStoppedError
from nanhunt.integrations.accelerate import guard as accelerate_guard
from nanhunt.integrations.lightning import GuardCallback as LightningGuard
from nanhunt.integrations.transformers import GuardCallback as TransformersGuard
from tests.guard import programs
from tests.guard.programs import batches, clean, different, everything

# Advice of the frameworks to a real user (workers, loggers, devices); not ours.
pytestmark = pytest.mark.filterwarnings("ignore")

BAD = (3, 9, 10)
COUNT = 20


# -- Lightning ----------------------------------------------------------------------------------


class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
    def __init__(self, through: str = "net") -> None:
        super().__init__()
        self.net = programs.net()
        self.through = through

    def forward(self, batch: Any) -> Any:
        return self.net(batch)

    def training_step(self, batch: Any, _index: int) -> Any:
        y = self(batch) if self.through == "self" else self.net(batch)
        return (y - 1).square().mean()

    def validation_step(self, batch: Any, _index: int) -> None:
        self.net(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def fit(data: Any, folder: Path, *callbacks: Any, **options: Any) -> Any:
    module = Module(options.pop("through", "net"))
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(module, programs.loader(data), programs.loader(batches(3)))
    return everything(module, trainer.optimizers[0])


@pytest.mark.parametrize(
    "options",
    [{}, {"through": "self"}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}],
)
def test_lightning_ends_with_the_bits_of_the_clean_run(options: Any, tmp_path: Path) -> None:
    bad = (4, 10) if "accumulate_grad_batches" in options else BAD
    dropped = (4, 5, 10, 11) if "accumulate_grad_batches" in options else BAD
    made = batches(COUNT, bad=bad)
    expected = fit(clean(made, dropped), tmp_path, **options)
    callback = LightningGuard(policy="skip_batch", bundle=tmp_path / "kept")
    got = fit(made, tmp_path, callback, **options)
    assert different(got, expected) == []
    assert callback.report is not None
    assert callback.report.counts == {"skipped": 2 * len(bad)}
    (path,) = (tmp_path / "kept").iterdir()
    content = torch.load(path, weights_only=True)
    assert content["batches_known"] == "told"
    assert torch.equal(content["batches"][0], made[bad[0]])


def test_a_healthy_lightning_run_keeps_its_bits(tmp_path: Path) -> None:
    callback = LightningGuard(policy="rollback")
    guarded = fit(batches(COUNT), tmp_path, callback)
    assert different(guarded, fit(batches(COUNT), tmp_path)) == []
    assert callback.report is not None
    assert callback.report.steps == 2 * COUNT


def test_lightning_is_stopped_with_everything_removed(tmp_path: Path) -> None:
    callback = LightningGuard(policy="stop", bundle=None)
    with pytest.raises(GuardStoppedError, match="step 3"):
        fit(batches(COUNT, bad=(3,)), tmp_path, callback)


def test_an_exception_in_lightning_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        fit([*batches(2), "mine"], tmp_path, LightningGuard(bundle=None))


# -- transformers -------------------------------------------------------------------------------


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = programs.net()

    def forward(self, x: Any, labels: Any = None) -> Any:
        return {"loss": (self.net(x) - 1).square().mean()}


def train(data: Any, folder: Path, *callbacks: Any, **options: Any) -> Any:
    model = Wrapped()
    rows = [{"x": row, "labels": 0} for batch in data for row in batch]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=programs.BATCH,
        max_steps=options.pop("max_steps", len(data)),
        lr_scheduler_type="constant",
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        train_sampling_strategy="sequential",
        **options,
    )
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, callbacks=list(callbacks)
    )
    trainer.train()
    return everything(model, trainer.optimizer)


def test_transformers_ends_with_the_bits_of_the_clean_run(tmp_path: Path) -> None:
    made = batches(COUNT, bad=BAD)
    expected = train(clean(made, BAD), tmp_path)
    with TransformersGuard(policy="skip_batch", bundle=tmp_path / "kept") as callback:
        got = train(made, tmp_path, callback)
    assert different(got, expected) == []
    assert callback.report is not None
    assert callback.report.counts == {"skipped": 3}
    assert callback.report.steps == COUNT
    (path,) = (tmp_path / "kept").iterdir()
    (batch,) = torch.load(path, weights_only=True)["batches"]
    assert torch.equal(batch["x"], made[BAD[0]])


def test_transformers_is_stopped_with_everything_removed(tmp_path: Path) -> None:
    callback = TransformersGuard(policy="stop", bundle=None)
    with pytest.raises(GuardStoppedError, match="step 3"):
        train(batches(COUNT, bad=(3,)), tmp_path, callback)


def test_an_exception_in_transformers_is_its_own(tmp_path: Path) -> None:
    class Bomb(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            raise KeyError("mine")

    with (
        pytest.raises(KeyError, match="mine"),
        TransformersGuard(policy="stop", bundle=None) as callback,
    ):
        train(batches(COUNT), tmp_path, callback, Bomb())


# -- Accelerate ---------------------------------------------------------------------------------


def accelerated(data: Any, folder: Path | None, **options: Any) -> tuple[Any, Any]:
    accelerator = accelerate.Accelerator(cpu=True, **options)
    bare = programs.net()
    model, optimizer, loader = accelerator.prepare(
        bare, torch.optim.Adam(bare.parameters()), programs.loader(data)
    )
    with accelerate_guard(accelerator, model, optimizer, policy="skip_batch", bundle=folder) as g:
        for x in g.batches(loader):
            with accelerator.accumulate(model):
                loss = (model(x) - 1).square().mean()
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
    return everything(bare, optimizer.optimizer), g.report


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}])
def test_accelerate_ends_with_the_bits_of_the_clean_run(options: Any, tmp_path: Path) -> None:
    bad, dropped = (BAD, BAD) if not options else ((4, 10), (4, 5, 10, 11))
    made = batches(COUNT, bad=bad)
    expected, _ = accelerated(clean(made, dropped), None, **options)
    got, report = accelerated(made, tmp_path, **options)
    assert different(got, expected) == []
    assert report.counts == {"skipped": len(bad)}
    (path,) = tmp_path.iterdir()
    assert torch.equal(torch.load(path, weights_only=True)["batches"][0], made[bad[0]])


def test_the_package_needs_none_of_them() -> None:
    program = """
import sys
for name in ("lightning", "pytorch_lightning", "transformers", "accelerate"):
    sys.modules[name] = None
import nanhunt
nanhunt.guard
"""
    root = Path(nanhunt.__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)
