"""Where the commands take classifiers and evaluators from, and what an inversion's folder says of its own."""

import json
from pathlib import Path

import pytest
import torch
from draws import seed_torch
from shells import TINY, Shell, colours

from netinv.app.inversions import Inversion
from netinv.app.options import read_data, train_evaluator
from netinv.app.parsing import parse_evaluator, parse_pairs, parse_source
from netinv.classifiers import load_classifier_from
from netinv.core import InputError
from netinv.inversion import variant_config
from netinv.results import load_results

pytestmark = pytest.mark.usefixtures("short_lessons")


def test_a_seed_gives_the_same_evaluator_and_leaves_torchs_random_state(folder: Path) -> None:
    dataset = read_data(folder, (3, 8, 8))
    found = []
    for seed, global_seed in ((4, 0), (4, 1), (5, 1)):
        seed_torch(global_seed)
        before = torch.get_rng_state()
        found.append(torch.cat([p.flatten() for p in train_evaluator(dataset, "cpu", seed).parameters()]))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_source_has_all_its_settings() -> None:
    source, device = parse_source(
        {
            "model": "foreign_networks:NamedOutput",
            "arguments": ("depth=3", "kind=wide"),
            "image_shape": "3,16,16",
            "mean": "0.5,0.5,0.5",
            "std": "1,1,1",
            "output": "logits",
            "output_entry": "1",
            "feature_layer": None,
            "device": "cpu",
        }
    )
    assert device == "cpu"
    assert source.arguments == {"depth": 3, "kind": "wide"}
    assert source.image_shape == (3, 16, 16)
    assert source.adapter.mean == (0.5, 0.5, 0.5)
    assert source.adapter.output_entry == 1


def test_an_evaluator_has_the_settings_of_a_model() -> None:
    pairs = ("weights=w.pt", "argument=depth=3", "argument=k=2", "mean=0.5", "std=1/4", "output_entry=1")
    source = parse_evaluator("foreign_networks:ConvNet", (*pairs, "num-classes=2", "output=sigmoid"), (1, 8, 8), "cpu")
    assert source.model_dump(exclude_defaults=True) == {
        "model": "foreign_networks:ConvNet",
        "weights": "w.pt",
        "arguments": {"depth": 3, "k": 2},
        "image_shape": (1, 8, 8),
        "num_classes": 2,
        "adapter": {"mean": (0.5,), "std": (0.25,), "output_entry": 1, "output": "sigmoid"},
    }
    for name in ("meen", "device"):
        with pytest.raises(InputError, match=f"--evaluator-set '{name}' is no option of an evaluator: .* weights, "):
            parse_evaluator("foreign_networks:ConvNet", (f"{name}=0.5",), (1, 8, 8), "cpu")
    with pytest.raises(InputError, match=r"^--evaluator-set: .*mean and std are given together"):
        parse_evaluator("foreign_networks:ConvNet", ("mean=2",), (1, 8, 8), "cpu")
    with pytest.raises(InputError, match="--evaluator-set 'mean' has no name and value"):
        parse_evaluator("foreign_networks:ConvNet", ("mean",), (1, 8, 8), "cpu")
    for text in ("1/0", "1/", "1/2/3", "a"):
        with pytest.raises(InputError, match=r"std '.*' is no list of numbers: write it like 0\.49,.* or 1/255\."):
            parse_evaluator("foreign_networks:ConvNet", ("mean=0", f"std={text}"), (1, 8, 8), "cpu")
    for again in ("mean=0.1", "output-entry=0", "num_classes=3"):
        with pytest.raises(InputError, match=r"^--evaluator-set gives .* twice: give it one value\.$"):
            parse_evaluator("foreign_networks:ConvNet", (*pairs, "num-classes=2", again), (1, 8, 8), "cpu")


def test_a_given_evaluator_judges_as_it_is_told_to(
    shell: Shell, weights: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shell("invert", *colours(weights), "--steps", 1, *TINY, "--out", "inversion")[0] == 3
    judge = ["--evaluator", "foreign_networks:ConvNet"]
    for setting in (f"weights={weights}", "argument=num_classes=2", "mean=0.5,0.5,0.5", "std=0.25,0.25,0.25"):
        judge += ["--evaluator-set", setting]
    measure = ("evaluate", *colours(weights), "--num-samples", 20, "--inversion", "inversion", "--data", folder)
    code, _, err = shell(*measure, *judge, "--out", "evaluation")
    assert code == 0
    assert "training accuracy" not in err
    assert json.loads(Path("evaluation/settings.json").read_text())["evaluator_set"].startswith("weights=")
    code, _, err = shell(*measure, *judge, "--evaluator-set", "input-shape=1,8,8", "--out", "other")
    assert code == 2
    assert "The classifier fails on a batch" in err or "mean and std have 3 values" in err


def test_values_of_pairs_are_json_or_text() -> None:
    assert parse_pairs(("a=1", "b=[1, 2]", "c=pgd", "d=x=y"), "--set") == {"a": 1, "b": [1, 2], "c": "pgd", "d": "x=y"}
    for text, value in (("True", True), ("False", False), ("None", None), ("false", False), ("null", None)):
        assert parse_pairs((f"pretrained={text}",), "--argument")["pretrained"] is value
    with pytest.raises(InputError, match="write it like NAME=VALUE"):
        parse_pairs(("=1",), "--set")
    with pytest.raises(InputError, match=r"^--set gives a twice: give it one value\.$"):
        parse_pairs(("a=1", "b=2", "a=3"), "--set")


@pytest.mark.parametrize(("text", "entry"), [("1", 1), ("logits", "logits"), ("²", "²")])
def test_an_entry_is_a_place_or_a_name(text: str, entry: int | str) -> None:
    assert parse_source({"model": "foreign_networks:ConvNet", "output_entry": text})[0].adapter.output_entry == entry


def test_an_inversion_remembers_its_classifier(
    shell: Shell, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("blob").write_bytes(weights.read_bytes())  # as in the cache of a hub: a link has the name
    Path("net.safetensors").symlink_to("blob")
    assert shell("invert", *colours(Path("net.safetensors")), "--steps", 1, *TINY, "--out", "inversion")[0] == 3
    kept = Inversion.load("inversion").source
    assert kept is not None
    assert (kept.model, kept.weights) == ("foreign_networks:ConvNet", str(Path.cwd() / "net.safetensors"))
    arguments = [word for name, value in kept.arguments.items() for word in ("--argument", f"{name}={value}")]
    measure = ("evaluate", "inversion", "--num-samples", 20, "--out")
    code, _, err = shell(*measure, "x", *arguments)
    assert (code, "asks to call foreign_networks:ConvNet with" in err) == (2, True)
    assert shell(*measure, "there", "--factory", "foreign_networks:ConvNet", *arguments)[0] == 0
    assert load_results(Path("there/results.json")).headline["inversion_accuracy"]
    code, _, err = shell(*measure, "x", "--factory", "foreign_networks:ConvNet", "--mean", "0,0,0", "--std", "1,1,1")
    assert (code, "leave that out, or name the classifier" in err) == (2, True)
    code, _, err = shell("evaluate", *colours(weights), "--out", "x")
    assert (code, "Missing option '--inversion'" in err) == (2, True)
    Path("net.safetensors").unlink()  # as on another machine
    code, _, err = shell(*measure, "x", "--factory", "foreign_networks:ConvNet", *arguments)
    assert (code, f"{Path.cwd() / 'net.safetensors'}, which is not here: bring it back, or name" in err) == (2, True)


def test_a_folder_that_an_inversion_names_says_alone_what_is_called(tmp_path: Path) -> None:
    """A record names a folder and the factory that this one asks for: both are stored, and neither is trusted."""
    marker = tmp_path / "ran"
    evil = {"model": "os:system", "arguments": {"command": f"touch {marker}"}}
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/config.json").write_text(
        json.dumps({"network": "imported", "source": evil, "num_classes": 2, "image_shape": [1, 4, 4]})
    )
    (tmp_path / "inversion").mkdir()
    record = {"classes": ["a", "b"], "accuracy": 1.0, "config": variant_config("standard").model_dump(mode="json")}
    record["classifier"] = evil | {"model": str(tmp_path / "evil"), "factory": "os:system"}
    (tmp_path / "inversion/inversion.json").write_text(json.dumps(record))
    source, device = parse_source({"model": str(tmp_path / "inversion"), "arguments": ()})
    with pytest.raises(InputError, match="which nothing here names: refused"):
        load_classifier_from(source, device)
    assert not marker.exists()


def test_a_classifier_is_exported_for_verify(shell: Shell, weights: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "classifier.onnx", colours(weights)
    code, _, err = shell("export-classifier", *model, "--classes", "red,green,blue", "--out", out)
    assert (code, "--classes names 3 classes, but the classifier knows 2" in err) == (2, True)
    assert shell("export-classifier", *model, "--classes", "red,blue", "--out", out)[0] == 0
    assert shell("invert", *model, "--classes", "red,blue", "--steps", 1, *TINY, "--out", tmp_path / "i")[0] == 3
    assert shell("export", tmp_path / "i", "--out", tmp_path / "g.onnx")[0] == 0
    code, printed, _ = shell("sample", tmp_path / "g.onnx", "--verify", out, "--num", 5, "--out", tmp_path / "s.png")
    assert code == 0
    assert "accuracy under" in printed
