"""What ``netinv evaluate`` measures together, and with which weights."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_networks import ConvNet
from safetensors.torch import load_file, save_file
from shells import FACTORY, TINY, Shell, colours

from netinv import evaluation
from netinv.app.inversions import Inversion
from netinv.app.options import read_inversion, read_subject
from netinv.app.records import expect_inverted, save_somewhere
from netinv.classifiers import adapt
from netinv.core import InputError, network_digest
from netinv.generators import ConditionedGenerator, GeneratorConfig
from netinv.inversion import InversionConfig, variant_config

pytestmark = pytest.mark.usefixtures("short_lessons")

SHAPE = (3, 8, 8)
SMALL = GeneratorConfig(width=4, max_width=4)


def made(
    folder: Path,
    config: InversionConfig | None = None,
    architecture: GeneratorConfig = SMALL,
    num_classes: int = 2,
    shape: tuple[int, int, int] = SHAPE,
) -> Path:
    """The folder of an inversion that was not trained."""
    generator = ConditionedGenerator(architecture, num_classes, shape).eval()
    classes = tuple(map(str, range(num_classes)))
    Inversion(generator, config or InversionConfig(), [{"step": 1.0}], classes, 0.5).save(folder)
    return folder


def test_inversions_of_different_kinds_are_not_measured_as_one(
    shell: Shell, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made(Path("one"))
    made(Path("longer"), InversionConfig(steps=7))
    others = {
        "sharpness": made(Path("sharper"), InversionConfig(sharpness=(40.0, 40.0))),
        "variant": made(Path("robust"), variant_config("robust")),
        "generator": made(Path("wider"), architecture=GeneratorConfig(width=8, max_width=8)),
    }
    measure = ("evaluate", *colours(weights), "--num-samples", 20, "--out", "x", "--inversion", "one", "--inversion")
    for what, folder in others.items():
        code, _, err = shell(*measure, folder)
        assert code == 2
        assert err == (
            f"error: one and {folder} differ in their {what}: evaluate each by itself, and `netinv report` puts them "
            "side by side.\n"
        )
    assert shell(*measure, "longer/../one")[2] == "error: one is named twice: name each folder once.\n"
    assert not Path("x").exists()
    options: dict[str, Any] = {
        "model": "foreign_networks:ConvNet",
        "image_shape": "3,8,8",
        "arguments": ("num_classes=2",),
    }
    read = read_subject((Path("one"), Path("longer")), None, None, (), 0, options, alike=True)
    assert len(read.inversions) == 2
    assert len(read_subject((Path("one"), Path("robust")), None, None, (), 0, options).inversions) == 2


def test_inversions_of_another_classifier_are_told_by_their_paths(shell: Shell, tmp_path: Path) -> None:
    classifier = adapt(ConvNet(num_classes=2), SHAPE)
    assert read_inversion(made(tmp_path / "fits"), "model", classifier).classes == ("0", "1")
    for folder in (made(tmp_path / "classes", num_classes=4), made(tmp_path / "shape", shape=(3, 8, 12))):
        with pytest.raises(
            InputError, match=rf"^{folder} draws images .* but foreign_networks:ConvNet takes \(3, 8, 8\) and"
        ):
            read_inversion(folder, "foreign_networks:ConvNet", classifier)
    words = (*FACTORY, "--argument", "num_classes=2", "--inversion", tmp_path / "classes", "--out", tmp_path / "x")
    for command in ("evaluate", "interpret"):
        code, _, err = shell(command, *words)
        assert (code, "of 4 classes, but foreign_networks:ConvNet takes" in err) == (2, True)


def test_an_inversion_stands_for_the_weights_that_were_inverted_alone(
    shell: Shell, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(weights, "w.safetensors")
    words = ("--steps", 1, *TINY, "--attempts", 1, "--seed", 5, "--out", "inversion")
    assert shell("invert", *colours(Path("w.safetensors")), *words)[0] == 3
    inversion = Inversion.load("inversion")
    assert inversion.seed == 5
    network = ConvNet(num_classes=2)
    network.load_state_dict(load_file("w.safetensors"))
    assert inversion.classifier_sha256 == network_digest(network)
    trusted = ("--factory", "foreign_networks:ConvNet", "--argument", "num_classes=2")
    assert shell("evaluate", "inversion", *trusted, "--num-samples", 20, "--out", "measured")[0] == 0
    assert json.loads(Path("measured/settings.json").read_text())["seeds"] == [5]

    state = load_file("w.safetensors")
    state["out.bias"] = state["out.bias"] + 0.5
    save_file(state, "w.safetensors")
    for command in (("evaluate",), ("interpret",), ("audit", "--data", "nowhere")):
        code, _, err = shell(*command, "inversion", *trusted, "--out", "x")
        assert code == 2
        assert "w.safetensors has other weights now than those that were inverted for inversion" in err
    record = Path("inversion/inversion.json")
    old = {
        name: value
        for name, value in json.loads(record.read_text()).items()
        if name not in ("seed", "classifier_sha256")
    }
    record.write_text(json.dumps(old))
    assert Inversion.load("inversion").seed is None
    expect_inverted("inversion", adapt(ConvNet(num_classes=2), SHAPE))  # of an older one nothing is known


def test_a_digest_is_of_weights_and_buffers() -> None:
    class Stateful(torch.nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

        def set_extra_state(self, state: object) -> None:
            pass

    one, other = Stateful(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict({name: value for name, value in one.state_dict().items() if name in ("weight", "bias")})
    assert network_digest(one) == network_digest(other)
    with torch.no_grad():
        other.bias.add_(1)
    assert network_digest(one) != network_digest(other)


def test_what_took_long_is_saved_beside_a_place_that_was_taken_meanwhile(tmp_path: Path) -> None:
    def save(out: Path) -> None:
        if out.name == "out":
            raise InputError("out holds other files.")
        out.mkdir()

    (tmp_path / "out-2").mkdir()
    with pytest.raises(InputError, match=r"^out holds other files\. What was made is in .*out-3\.$"):
        save_somewhere(save, tmp_path / "out")
    assert (tmp_path / "out-3").is_dir()


def test_or_among_temporary_files_where_nothing_can_be_written_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(out: Path) -> None:
        if out.parent.name == "full":
            raise InputError("No room.")
        out.mkdir()

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError, match=rf"^No room\. What was made is in {tmp_path}/netinv-\w+/out\.$"):
        save_somewhere(save, tmp_path / "full" / "out")
    assert len(list(tmp_path.glob("netinv-*/out"))) == 1


def test_an_evaluation_is_saved_beside_a_place_that_was_taken_meanwhile(
    shell: Shell, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, measure = tmp_path / "out", evaluation.evaluate

    def slow(*arguments: Any, **named: Any) -> Any:
        out.mkdir()
        return measure(*arguments, **named)

    monkeypatch.setattr(evaluation, "evaluate", slow)
    words = ("--inversion", made(tmp_path / "inversion"), "--num-samples", 20, "--out", out)
    code, _, err = shell("evaluate", *colours(weights), *words)
    assert code == 2
    assert f"error: {out} is there already: name a new folder. What was made is in {out}-2." in err
    assert (tmp_path / "out-2" / "results.json").is_file()


def test_images_that_measures_mean_little_of_are_warned_of(
    shell: Shell, weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The test images are the training images, and their classes in another order than the network's."""
    for split in ("train", "test"):
        for name, place in (("red", "a"), ("blue", "b")):
            shutil.copytree(folder / "test" / name, tmp_path / "data" / split / place)
    words = [*colours(weights)]
    options: dict[str, Any] = {"model": words[0], "image_shape": "3,8,8", "weights": str(weights), "device": "cpu"}
    options["arguments"] = ("num_classes=2",)
    judge = (f"weights={weights}", "argument=num_classes=2", "num_classes=2")
    data = tmp_path / "data"
    read_subject((made(tmp_path / "inversion"),), data, "foreign_networks:ConvNet", judge, 0, options)
    told = capsys.readouterr().err
    assert f"warning: {data}: 80 of 80 test images are training images too: accuracies are too high" in told
    for network in ("foreign_networks:ConvNet", "the evaluator"):
        assert f"warning: {network} on {data}: The accuracy of 0.000 is hardly better than chance" in told
    assert told.count("warning: ") == 3
    policy = tmp_path / "policy.yaml"
    policy.write_text("membership: null\nrobustness: null\n")
    audit = shell("audit", *words, "--data", data, "--policy", policy, "--out", tmp_path / "out")
    assert audit[2].count("warning: ") == 2
    told = shell("check", *words, "--data", folder)[2]
    assert "warning: " not in told
