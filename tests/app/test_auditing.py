"""The command audit, as typed in a shell: its exit status is its verdict, and its folder the record."""

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
import torch
from draws import seed_torch
from PIL import Image

from netinv.app.command import main
from netinv.audit import STATUS, AuditRecord, audit, load_audit
from netinv.classifiers import (
    ClassifierTrainingConfig,
    ConvClassifierConfig,
    build_classifier,
    save_classifier,
    train_classifier,
)
from netinv.data import LabelledImages, channel_statistics, load_digits, save_dataset

if TYPE_CHECKING:
    from conftest import Exported

POLICY = (
    "membership: {shadows: null, max_auc: 0.9, images: 300}\n"
    "robustness: {min_accuracy: 0.2}\n"  # it learned for a moment, and some draws leave it at a half
    "samples: 250\n"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a classifier of it, a policy, and two sets of images: replayed ones, and strangers."""
    root = tmp_path_factory.mktemp("audit")
    digits = load_digits()
    train = LabelledImages(digits.train.images[:500], digits.train.labels[:500])
    (root / "data").mkdir()
    save_dataset(root / "data", "digits", digits.classes, train, digits.test, "", "")
    seed_torch(0)
    architecture = ConvClassifierConfig(channels=(4, 8), feature_dim=32, dropout=0)
    classifier = build_classifier(architecture, 10, (1, 16, 16), *channel_statistics(train.images))
    assert list(train_classifier(classifier, train, ClassifierTrainingConfig(epochs=8), 0))
    save_classifier(root / "classifier", classifier)
    (root / "policy.yaml").write_text(POLICY)
    np.savez(root / "replayed.npz", images=train.images[:250].float().numpy() / 255)
    (root / "strangers/some").mkdir(parents=True)
    for i, image in enumerate(digits.train.images[600:850]):
        Image.fromarray(image[0].numpy()).save(root / f"strangers/some/{i}.png")
    return root


def run(monkeypatch: pytest.MonkeyPatch, place: Path, *words: object) -> int:
    arguments = ["audit", place / "classifier", "--data", place / "data", "--device", "cpu", *words]
    monkeypatch.setattr(sys, "argv", ["netinv", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_each_verdict_has_its_exit_status(
    place: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = json.loads((root / "docs/audit.schema.json").read_text())
    policy = ("--policy", place / "policy.yaml")
    strict = tmp_path / "strict.yaml"
    strict.write_text(POLICY + "leak: {min_samples: 1000}\n")
    cases = {
        "pass": (*policy, "--images", place / "strangers", "--evaluator", place / "classifier"),
        "fail": (*policy, "--images", place / "strangers", "--images", place / "replayed.npz"),
        "investigate": ("--policy", strict, "--images", place / "strangers"),
    }
    for verdict, words in cases.items():
        assert run(monkeypatch, place, *words, "--out", tmp_path / verdict) == STATUS[verdict], verdict
        record = load_audit(tmp_path / verdict / "audit.json")
        jsonschema.validate(json.loads((tmp_path / verdict / "audit.json").read_text()), schema)
        assert record.verdict == verdict
        assert {path.name for path in (tmp_path / verdict).iterdir()} == {"audit.html", "audit.json", "junit.xml"}
        assert f"{verdict}: {record.summary}" in capsys.readouterr().out
    record = load_audit(tmp_path / "fail" / "audit.json")
    assert [(files.name, files.num) for files in record.samples] == [("strangers", 250), ("replayed.npz", 250)]
    assert record.model.name == "classifier"
    assert (tmp_path / "fail" / "audit.html").read_text().count("data:image/png") == len(record.recognised)
    assert STATUS == {"pass": 0, "investigate": 3, "fail": 1}


def test_generators_draw_at_their_own_sharpness(
    exported: "Exported", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ONNX file and its classifier of other data: too few images for a pass, and the record says of what.

    Which of its few images are nearest to what it draws is chance: it may fail.
    """
    folder, classifier = exported.folder, exported.classifier
    save_classifier(tmp_path / "classifier", classifier)
    (tmp_path / "data").mkdir()
    images = torch.randint(0, 256, (120, 1, 12, 12), dtype=torch.uint8)
    split = LabelledImages(images[:60], torch.arange(60) % 3)
    other = LabelledImages(images[60:], torch.arange(60) % 3)
    save_dataset(tmp_path / "data", "noise", ("zero", "one", "two"), split, other, "", "")
    policy = tmp_path / "policy.yaml"
    policy.write_text("strangers: null\nmembership: null\nrobustness: null\nsamples: 200\n")
    words = ("--policy", policy, "--generators", folder / "generator-0.onnx", "--json", "--out", tmp_path / "out")
    status = run(monkeypatch, tmp_path, *words)
    told = json.loads(capsys.readouterr().out)
    assert status == STATUS[told["verdict"]] != STATUS["pass"]
    assert [files["name"] for files in told["samples"]] == ["generator-0.onnx"]
    assert told["samples"][0]["num"] == 200
    wanted = "60 real images on one side, where 200 are wanted"
    assert (wanted in told["checks"][0]["finding"]) == (told["verdict"] == "investigate")
    spec = tmp_path / "data/spec.json"
    spec.write_text(spec.read_text().replace('"one"', '"three"'))
    assert run(monkeypatch, tmp_path, *words[:4], "--out", tmp_path / "other") == 2
    assert "generator-0.onnx are zero, one, two: give both the same names" in capsys.readouterr().err


def test_errors_end_with_2(
    place: Path,
    exported: "Exported",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("leek: null\n")
    whole = (place / "replayed.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "damaged.npz").write_bytes(whole[:500] + bytes([whole[500] ^ 255]) + whole[501:])
    np.save(tmp_path / "bare.npy", np.zeros((2, 1, 8, 8), np.float32))
    (tmp_path / "bare.npy").rename(tmp_path / "bare.npz")
    for name, dtype in (("complex", np.complex64), ("bool", np.bool_)):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((300, 1, 16, 16), dtype))
    cases = {
        ("--policy", broken): "broken.yaml.leek is not a known key",
        ("--generators", exported.folder / "generator-0.onnx"): "0.onnx draws images (1, 12, 12) of 3 classes, but ",
        ("--images", tmp_path / "absent"): "is no folder of images",
        ("--images", tmp_path / "absent.npz"): "is no file of netinv sample",
        ("--images", tmp_path / "cut.npz"): "cut.npz is no file of netinv sample",
        ("--images", tmp_path / "damaged.npz"): "damaged.npz is no file of netinv sample",
        ("--images", tmp_path / "bare.npz"): "bare.npz is no file of netinv sample",
        ("--images", tmp_path / "complex.npz"): "complex.npz are torch.complex64 of shape (300, 1, 16, 16): give (N,",
        ("--images", tmp_path / "bool.npz"): "bool.npz are torch.bool of shape (300, 1, 16, 16): give (N, C, H, W), u",
        ("--evaluator-set", "mean=0.5"): "name it with --evaluator",
        ("--images", place / "strangers", "--images", place / "strangers"): "Two sets of samples have one name",
    }
    spec = json.loads((place / "data/spec.json").read_text())
    told_of_data = {
        (*spec["classes"], "10"): "more has 11 classes, but ",
        ("1", "0", *spec["classes"][2:]): "swapped: Its classes are in the order 1, 0, 2, 3",
    }
    for name, (classes, told) in zip(("more", "swapped"), told_of_data.items(), strict=True):
        shutil.copytree(place / "data", tmp_path / name)
        (tmp_path / name / "spec.json").write_text(json.dumps(spec | {"classes": classes}))
        cases["--data", tmp_path / name, "--images", tmp_path / "absent"] = told
    for words, told in cases.items():
        assert run(monkeypatch, place, *words, "--out", tmp_path / "out") == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_images_far_behind_in_a_set_are_looked_at(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Strangers fill what the policy looks at, and copies stand behind them, in an .npz and in a folder."""
    images = load_digits().train.images
    mixed = torch.cat([images[600:850], images[:250]])
    np.savez(tmp_path / "behind.npz", images=mixed.numpy())  # uint8, as the pictures of the folder
    (tmp_path / "behind").mkdir()
    for i, image in enumerate(mixed):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"behind/{i:03}.png")
    for name in ("behind.npz", "behind"):
        out = tmp_path / f"out-{name}"
        words = ("--policy", place / "policy.yaml", "--images", tmp_path / name, "--out", out)
        assert run(monkeypatch, place, *words) == STATUS["fail"]
        assert f"250 of the 500 images of {name}." in capsys.readouterr().out
        record = load_audit(out / "audit.json")
        flagged = [pair for pair in record.recognised if pair.flagged]
        assert flagged
        assert all(pair.sample == 250 + pair.train for pair in flagged)
        assert (out / "audit.html").read_text().count("data:image/png") == len(record.recognised)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_verdict_is_told_and_kept_where_its_place_was_taken_meanwhile(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    out = tmp_path / "out"

    def slow(*arguments: Any, **named: Any) -> AuditRecord:
        out.mkdir()
        return audit(*arguments, **named)

    monkeypatch.setattr("netinv.audit.audit", slow)
    words = ("--policy", place / "policy.yaml", "--out", out, *(["--json"] if as_json else []))
    assert run(monkeypatch, place, *words) == 2
    printed = capsys.readouterr()
    assert f"error: {out} is there already: name a new folder. What was made is in {out}-2." in printed.err
    record = load_audit(tmp_path / "out-2" / "audit.json")
    told = json.loads(printed.out)["verdict"] if as_json else printed.out.splitlines()[-1]
    assert told == (record.verdict if as_json else f"{record.verdict}: {record.summary}")


def test_no_unexpected_error_ends_with_a_verdict(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("expected m1 and m2 to have the same dtype")

    monkeypatch.setattr("netinv.audit.audit", broken)
    assert run(monkeypatch, place, "--out", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "RuntimeError: expected m1 and m2" in told
    assert not (tmp_path / "out").exists()
