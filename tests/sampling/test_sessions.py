"""Files as sessions of onnxruntime: threads, batches, and what is no such file."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_models import classifier, generator

from netinv.core import InputError
from netinv.sampling import OnnxClassifier, OnnxGenerator
from netinv.sampling.sessions import open_session


def test_threads_are_those_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = generator(tmp_path).path, classifier(tmp_path).path
    opened: list[Any] = []
    real = onnxruntime.InferenceSession

    def session(path: str, options: Any, **rest: Any) -> Any:
        opened.append((options.intra_op_num_threads, options.log_severity_level, rest))
        return real(path, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    for kind, path in zip((OnnxGenerator, OnnxClassifier), paths, strict=True):
        kind(path, num_threads=3), kind(path)
    rest = {"providers": ["CPUExecutionProvider"]}
    assert opened == [(3, 4, rest), (0, 4, rest)] * 2


def test_any_number_of_rows_goes_through_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = classifier(tmp_path)
    sizes: list[int] = []

    class Counting:
        get_inputs = network._session.get_inputs

        def run(self, outputs: None, feeds: dict[str, np.ndarray], options: Any) -> list[np.ndarray]:
            assert outputs is None
            sizes.append(len(feeds["images"]))
            return [feeds["images"].reshape(-1, 10)[:, :3], np.zeros(1)]

    images = (np.arange(130 * 10, dtype=np.float32) / 1300).reshape(130, 1, 2, 5)
    monkeypatch.setattr(network, "_session", Counting())
    assert np.array_equal(network(images), images.reshape(-1, 10)[:, :3])
    assert sizes == [64, 64, 2]
    assert network(images[:0]).shape == (0, 3)
    assert sizes[3:] == [0]


def test_a_file_is_opened_only_as_what_it_is(tmp_path: Path) -> None:
    path = generator(tmp_path).path
    with pytest.raises(InputError, match=f"^{re.escape(str(path))} is a generator: name an exported classifier.$"):
        open_session(path, "classifier", None)
    missing = tmp_path / "missing.onnx"
    told = r"missing\.onnx is not a file that can be read \(.*\): name an ONNX file, as `netinv export` writes it\.$"
    with pytest.raises(InputError, match=told):
        open_session(missing, "generator", None)
    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key in ("netinv.noise_dim", "netinv.num_generators"):
            entry.value = "2"
    onnx.save(model, path)
    expected = "{'latent': (2,), 'condition': (3,), 'noise': (2,), 'generator': ()}"
    got = "{'latent': (2,), 'condition': (3,)}"
    told = f"does not fit its metadata: expected the inputs {expected}, got {got}."
    with pytest.raises(InputError, match=re.escape(told)):
        open_session(path, "generator", None)


def test_what_onnxruntime_says_of_a_file_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = generator(tmp_path).path

    def refuse(*arguments: Any, **rest: Any) -> None:
        raise RuntimeError("it is\n  broken")

    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", refuse)
        version = onnxruntime.__version__
        told = (
            rf"plain-0\.onnx is not an ONNX file that onnxruntime {version} opens \(it is broken\): export it again\.$"
        )
        with pytest.raises(InputError, match=told):
            open_session(path, "generator", None)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))} was not written by this project's export"):
        open_session(path, "generator", None)


def test_a_session_leaves_nothing_in_the_home_that_onnxruntime_would_report(tmp_path: Path) -> None:
    """It queues a report in ``~/.cache/Microsoft`` otherwise, beside an id of the machine."""
    path, home = generator(tmp_path).path, tmp_path / "home"
    home.mkdir()
    code = f"from netinv.sampling import OnnxGenerator; OnnxGenerator({str(path)!r}).sample(1, seed=0)"
    clean = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    subprocess.run([sys.executable, "-c", code], env={**clean, "HOME": str(home)}, check=True)
    assert [*home.iterdir()] == []
