"""What several benchmarks measure with: clocks, spreads, a classifier, what the machine can do, files of rows."""

import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from netinv.classifiers import (
    Classifier,
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    build_classifier,
    freeze,
    predict,
    train_classifier,
)
from netinv.data import LabelledImages


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, without one that was cut off; none where there is no file."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: a line that was cut off is left out.", flush=True)
    return rows


def add_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a file of JSON lines, on a line of its own though the last one was cut off."""
    cut = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write("\n" * cut + json.dumps(row) + "\n")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a call."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": median, "low": low, "high": high}


def told(value: dict[str, float], digits: int = 2) -> str:
    """A spread for the table."""
    return f"{value['median']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def fresh_classifier(shape: tuple[int, int, int], device: torch.device) -> Classifier:
    """The pipeline's architecture, untrained: the weights do not change the time."""
    torch.manual_seed(0)
    config = ConvClassifierConfig(channels=(16, 32), batch_norm=False)
    classifier = build_classifier(config, 10, shape, (0.3,) * shape[0], (0.3,) * shape[0]).to(device)
    freeze(classifier)
    return classifier


def timed_epochs(
    classifier: Classifier, train: LabelledImages, test: LabelledImages, config: ClassifierTrainingConfig
) -> list[dict[str, float]]:
    """Train a classifier; after each epoch the seconds of training until then, and the accuracy on test images."""
    epochs = train_classifier(classifier, train, config, seed=0)
    seconds, history = 0.0, []
    for _ in range(config.epochs):
        seconds += timed(partial(next, epochs), classifier.device)
        logits, _ = predict(classifier.eval(), test.images)
        right = (logits.argmax(dim=1).cpu() == test.labels).float().mean()
        history.append({"seconds": seconds, "test_accuracy": float(right)})
    return history


def machine_rates(device: torch.device) -> dict[str, float]:
    """What the machine reaches in float32: arithmetic of a matrix product and a convolution, and bytes moved."""
    a, b = (torch.randn(2048, 2048, device=device) for _ in range(2))
    images = torch.randn(64, 64, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    convolution = nn.Conv2d(64, 64, 3, padding=1, device=device).to(memory_format=torch.channels_last)
    source = torch.randn(2**26, device=device)  # 256 MiB, beyond any cache
    target = torch.empty_like(source)
    with torch.no_grad():
        work: dict[str, tuple[Callable[[], Any], float]] = {
            "matrix_gflops": (lambda: torch.mm(a, b), 2 * 2048**3),
            "convolution_gflops": (lambda: convolution(images), 2 * 64 * 32 * 32 * 64 * 64 * 9),
            "gigabytes_per_second": (lambda: target.copy_(source), 2 * 4 * 2**26),
        }
        for call, _ in work.values():
            call()
        return {
            name: max(amount / timed(call, device) for _ in range(7)) / 1e9 for name, (call, amount) in work.items()
        }


class Arithmetic(TorchDispatchMode):
    """Counts the floating-point operations of matrix products and convolutions within it.

    torch's own FlopCounterMode follows modules too, and cannot do that through the gradients of an attack.
    """

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count, and pass on."""
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def processor() -> str:
    """The processor's name."""
    match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    return match[1] if match else platform.processor()
