"""The loop in `ava bench gpu`: how long the device waits for it, whether it waits for the device, and other loops."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from ava.bench.gpu_setup import Scale, Tell, build, peak_bytes, wait, windows
from ava.bench.turns import Ended
from ava.data.loader import Position, TrainingLoader, Window
from ava.training.journal import Journal
from ava.training.loop import Plan, Trainer
from ava.training.state import Run
from ava.training.step import training_step


def _run(scale: Scale, compiled: bool = True) -> Run:
    """GPT-2's smallest at sequence 1024: short steps, so that a loop's own cost shows."""
    overrides = [f"model.preset={scale.pick('124m', '1m')}", "precision=bf16", *(scale.compile if compiled else ())]
    return build(scale, overrides, context=scale.pick(1024, 32), batch_size=scale.pick(16, 2))


def _plan(run: Run) -> Plan:
    return Plan(
        10**9, log_every=10, eval_every=0, checkpoint_every=0, keep_last=1, keep_best=False,
        monitor=run.task.monitor, mode=run.task.mode,
    )  # fmt: skip


class _Marked(TrainingLoader):
    """A loader that tells of each window before it is used, and ends the training after some."""

    mark: Callable[[int], None]
    steps: int

    def windows(self, start: Position) -> Iterator[Window]:
        for number, window in enumerate(super().windows(start)):
            if number == self.steps:
                raise Ended
            self.mark(number)
            yield window


def _train(run: Run, steps: int, mark: Callable[[int], None]) -> None:
    """Ava's whole loop over `steps` steps, logging every 10, without evaluation or checkpoint."""
    old = run.loader
    marked = _Marked(old.split, batch_size=old.batch_size, pin_memory=old.pin_memory)
    marked.mark, marked.steps = mark, steps
    run.loader = marked
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Ended):
        Trainer(run, _plan(run), Path(folder), []).train()


def idle(scale: Scale, tell: Tell) -> None:
    """The share of time in which no kernel runs, over steps that log as usual."""
    run = _run(scale)
    first, steps = scale.pick(20, 2), scale.pick(40, 3)
    on_device = scale.device.type == "cuda"
    recorder = profile(activities=[ProfilerActivity.CUDA] if on_device else [ProfilerActivity.CPU])

    def mark(number: int) -> None:
        if number == first:
            wait(scale.device)
            recorder.start()

    _train(run, first + steps, mark)
    wait(scale.device)
    recorder.stop()
    kind = DeviceType.CUDA if on_device else DeviceType.CPU
    # Ranges that code gave a name are mirrored on the device, and span its idle time.
    events: Any = recorder.events()  # type: ignore[no-untyped-call]
    seen = [e for e in events if e.device_type == kind and not e.is_user_annotation]
    spans = [(e.time_range.start, e.time_range.end) for e in seen]
    tell({"idle": idle_share(spans), "events": len(spans), "of": "kernels" if on_device else "operators, a rehearsal"})


def idle_share(spans: Iterable[tuple[float, float]]) -> float | None:
    """The share of the time from the first start to the last end that no span covers."""
    ordered = sorted(spans)
    if not ordered:
        return None
    begin, end, covered = ordered[0][0], ordered[0][0], 0.0
    for start, stop in ordered:
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return 1.0 - covered / (end - begin) if end > begin else 0.0


def syncs(scale: Scale, tell: Tell) -> None:
    """Steps between two logged ones, in a mode of torch's in which to wait for the device is an error."""
    run = _run(scale)
    journal = Journal(run)
    batches = windows(run, scale.pick(30, 4))
    for window in batches[: len(batches) // 2]:
        journal.add(training_step(run, window))
    journal.read(1.0)
    if scale.device.type != "cuda":
        tell({"syncs": None, "reason": "a processor has nobody to wait for"})
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        for window in batches[len(batches) // 2 :]:
            journal.add(training_step(run, window))
        tell({"syncs": 0})
    except RuntimeError as error:
        tell({"syncs": 1, "reason": " ".join(str(error).split())[:500]})
    finally:
        torch.cuda.set_sync_debug_mode("default")


def loops(scale: Scale, tell: Tell) -> None:
    """The same model in Ava's loop, in a bare one and in Hugging Face's Trainer: tokens per second and memory."""
    steps, skipped = scale.pick(60, 4), scale.pick(20, 1)
    for name, train in {"ava": _ours, "bare": _bare, "transformers": _transformers}.items():
        run = _run(scale) if train is _ours else _run(scale, compiled=False)
        if train is not _ours and not scale.tiny:
            run.network = torch.compile(run.model)  # type: ignore[assignment]
        peak_bytes(scale.device)
        clock: list[float] = []

        def mark(number: int, clock: list[float] = clock) -> None:
            if number == skipped:
                wait(scale.device)
                clock.append(time.perf_counter())

        try:
            train(run, steps, mark)
        except ImportError as error:
            tell({name: {"error": f"not installed: {error.name}"}})
            continue
        wait(scale.device)
        took = (time.perf_counter() - clock[0]) / (steps - skipped)
        tokens = run.loader.batch_size * scale.pick(1024, 32)
        tell({name: {
            "ms": took * 1e3, "tokens_per_second": tokens / took, "peak_bytes": peak_bytes(scale.device)
        }})  # fmt: skip
        del run
        torch._dynamo.reset()


def _ours(run: Run, steps: int, mark: Callable[[int], None]) -> None:
    _train(run, steps, mark)


def _batches(run: Run, mark: Callable[[int], None]) -> Iterator[dict[str, torch.Tensor]]:
    loader = TrainingLoader(run.loader.split, batch_size=run.loader.batch_size, pin_memory=run.loader.pin_memory)
    for number, window in enumerate(loader.windows(Position())):
        mark(number)
        yield window.batches[0]


def _mean_loss(network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    logits = network(batch["inputs"]).float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())


def _bare(run: Run, steps: int, mark: Callable[[int], None]) -> None:
    """What a tutorial writes: autocast, fused AdamW, clipping, the loss read every 10 steps."""
    device = run.world.device
    optimizer = torch.optim.AdamW(run.model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    for step, batch in enumerate(_batches(run, mark), start=1):
        batch = {name: part.to(device, non_blocking=True) for name, part in batch.items()}
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = _mean_loss(run.network, batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            loss.item()
        if step == steps:
            return


def _transformers(run: Run, steps: int, mark: Callable[[int], None]) -> None:
    """Hugging Face's Trainer over the same compiled model, batches and optimizer; nothing saved or evaluated."""
    import transformers

    class WithLoss(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
            """The mean loss of a batch, as Trainer expects it from a model."""
            return {"loss": _mean_loss(self.network, {"inputs": inputs, "targets": targets})}

    class Given(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return _batches(run, mark)

    class Fed(transformers.Trainer):
        def get_train_dataloader(self) -> Any:
            """The same batches, instead of a loader of Trainer's own."""
            return torch.utils.data.DataLoader(Given(), batch_size=None)

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=run.loader.batch_size, max_grad_norm=1.0,
            logging_steps=10, save_strategy="no", eval_strategy="no", report_to=[], disable_tqdm=True, bf16=True,
            use_cpu=run.world.device.type == "cpu", lr_scheduler_type="constant", label_names=["targets"],
            remove_unused_columns=False,
        )  # fmt: skip
        optimizer = torch.optim.AdamW(run.model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
        Fed(
            model=WithLoss(run.network), args=arguments, train_dataset=Given(), optimizers=(optimizer, None)
        ).train()  # fmt: skip
