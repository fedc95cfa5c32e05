"""The commands check, invert, evaluate and export, as typed in a shell."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from draws import seed_torch
from PIL import Image
from safetensors.torch import load_file, save_file
from shells import FACTORY, TINY, Shell, colours
from zoo import ConvNet

from netinv import invert
from netinv.app.inversions import Inversion
from netinv.app.options import parse_evaluator, parse_source, read_data, train_evaluator
from netinv.app.parsing import parse_pairs
from netinv.classifiers import load_classifier_from
from netinv.core import InputError
from netinv.inversion import variant_config
from netinv.report import read_evaluations
from netinv.report.tables import robustness_table
from netinv.results import load_results
from netinv.sampling import OnnxGenerator

pytestmark = pytest.mark.usefixtures("short_lessons")


def test_help_needs_no_torch(root: Path) -> None:
    code = "import sys, netinv.app.command as c; c.cli(['-h'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    for name in ("audit", "check", "invert", "sample", "evaluate", "export", "export-classifier", "fetch"):
        assert f"\n  {name} " in done.stdout


def test_check_tells_what_it_found(shell: Shell, folder: Path, weights: Path) -> None:
    code, out, err = shell("check", *colours(weights), "--data", folder)
    assert code == 0
    assert "outputs     2 classes, logits, from " in out
    assert "features    24, the input of out" in out
    assert "accuracy    1.000 on 80 images" in out
    assert "error:" not in out + err


def test_check_ends_with_1_where_inversion_would_be_in_vain(shell: Shell, folder: Path) -> None:
    code, out, _ = shell("check", *FACTORY, "--num-classes", 2, "--data", folder, "--json")
    assert code == 1
    report = json.loads(out)
    assert report["num_classes"] == 10
    assert [finding["code"] for finding in report["findings"] if finding["severity"] == "error"] == ["num_classes"]


def test_check_finds_swapped_channels(shell: Shell, folder: Path, weights: Path) -> None:
    code, out, _ = shell("check", *colours(weights), "--data", folder, "--channel-order", "bgr")
    assert code == 0
    assert "warning: It takes its channels in the order RGB: set channel_order to rgb" in out


def test_the_robust_variant_in_one_word(shell: Shell, weights: Path, tmp_path: Path) -> None:
    invert = ("invert", *colours(weights), "--variant", "robust", "--steps", 2, *TINY, "--set", "epsilon=0.05")
    code, _, told = shell(*invert, "--attempts", 1, "--out", tmp_path / "inversion")
    assert code == 3  # after two steps
    assert "warning: Of the classes" in told
    assert (tmp_path / "inversion/grid.png").read_bytes().startswith(b"\x89PNG")
    assert "note: The variant robust compares" in told
    changes = {"steps": 2, "batch_size": 8, "epsilon": 0.05, "pixel_statistics": 0.0}
    assert Inversion.load(tmp_path / "inversion").config == variant_config("robust").model_copy(update=changes)


def test_what_makes_an_inversion_doubtful_is_a_line(shell: Shell, weights: Path, tmp_path: Path) -> None:
    state = load_file(weights)
    state["convolutions.1.running_var"].fill_(1e5)
    save_file(state, tmp_path / "weights.safetensors")
    invert = ("invert", *colours(tmp_path / "weights.safetensors"), "--steps", 1, *TINY, "--attempts", 1)
    _, _, told = shell(*invert, "--out", tmp_path / "inversion")
    assert "\nwarning: Was it trained on pixels in 0..255? " in f"\n{told}"
    assert "UserWarning" not in told


def test_images_of_five_channels_are_kept_and_shown(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "five"
    factory = ("zoo:ConvNet", "--argument", "in_channels=5", "--image-shape", "5,8,8", "--device", "cpu")
    code, _, _ = shell("invert", *factory, "--steps", 2, "--attempts", 1, *TINY, "--out", out)
    assert code in (0, 3)
    assert Inversion.load(out).generator.image_shape == (5, 8, 8)
    with Image.open(out / "grid.png") as picture:
        assert picture.mode == "L"


def test_numbers_out_of_range_are_refused_before_work(
    shell: Shell, weights: Path, folder: Path, tmp_path: Path
) -> None:
    wrong = {("--seed", 20261128091500): "evaluate.seed", ("--num-samples", 2_000_000_000): "evaluate.num_samples"}
    for words, name in wrong.items():
        measure = ("evaluate", *colours(weights), "--inversion", tmp_path, "--data", folder, "--out", tmp_path / "out")
        code, _, told = shell(*measure, *words)
        assert code == 2
        assert name in told
        assert told.count("\n") == 1
    with pytest.raises(InputError, match=r"The seed is 4294967296: give 0 to 2147483647\."):
        invert(ConvNet(), image_shape=(3, 8, 8), seed=2**32)


def test_from_a_classifier_to_measures_and_an_onnx_file_without_data(
    shell: Shell, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "inversion"
    code, printed, _ = shell("invert", *colours(weights), "--steps", 60, *TINY, "--out", out, "--json")
    assert code == 0
    told = json.loads(printed)
    inversion = Inversion.load(out)
    assert told["accuracy"] == inversion.accuracy > 0.7
    assert inversion.config.steps == 60
    assert inversion.config.batch_size == 8
    assert inversion.generator.config.width == 8

    results = tmp_path / "evaluation"
    measure = ("evaluate", *colours(weights), "--inversion", out, "--num-samples", 100, "--out")
    code, printed, _ = shell(*measure, results)
    assert code == 0
    assert "evaluator accuracy           not measured: " in printed
    assert "vendi, classifier features" in printed
    headline = load_results(results / "results.json").headline
    assert headline["inversion_accuracy"].value > 0.7  # type: ignore[union-attr]
    code, printed, _ = shell(*measure, tmp_path / "again", "--json")
    told = json.loads(printed)
    assert told["headline"]["inversion_accuracy"] == headline["inversion_accuracy"].model_dump()
    assert 1 <= told["classifier_vendi"][0] <= 24

    code, printed, _ = shell("report", results, "--out", tmp_path / "report.html")
    assert code == 0
    page = (tmp_path / "report.html").read_text()
    assert "Not measured" in page or "not measured" in page
    assert "there are no real images" in page or "no evaluator" in page
    assert not re.search(r"(src|href)=[\"']https?://", page)

    code, printed, _ = shell("export", out, "--out", tmp_path / "generator.onnx")
    assert code == 0
    drawn = OnnxGenerator(tmp_path / "generator.onnx").sample(3, labels=1).images
    np.testing.assert_allclose(drawn, inversion.sample(3, label=1).numpy(), atol=1e-5)


def test_with_an_image_folder_an_evaluator_judges_too(
    shell: Shell, folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("invert", *colours(weights), "--steps", 3, *TINY, "--out", tmp_path / "inversion")
    results = tmp_path / "evaluation"
    code, _, err = shell(
        "evaluate", *colours(weights), "--inversion", tmp_path / "inversion", "--data", folder, "--num-samples", 60,
        "--out", results,
    )  # fmt: skip
    assert code == 0
    assert "evaluator: epoch 5" in err
    found = load_results(results / "results.json")
    shell("report", results, "--out", tmp_path / "report.html")
    assert "real, test" in (tmp_path / "report.html").read_text()
    assert found.classes == ("blue", "red")
    assert found.headline["evaluator_accuracy"].n == 60  # type: ignore[union-attr]
    real = next(row for row in found.rows if row.name == "real_test")
    assert real.measures["evaluator_accuracy"].value > 0.75  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "words",
    [
        ("invert", "nowhere:at_all"),
        ("evaluate", "nowhere:at_all", "--inversion", "nowhere"),
        ("report", "nowhere"),
        ("export", "nowhere"),
        ("sample", "nowhere.onnx"),
    ],
)
@pytest.mark.parametrize("out", ["taken", "taken.png", "file.png/new.png", "/proc/new", "/proc/new/deep"])
def test_an_output_is_looked_at_before_all_else(
    words: tuple[str, ...], out: str, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("taken", "taken.png"):
        Path(name).mkdir()
        Path(name, "thesis.tex").touch()
    Path("file.png").touch()
    before = sorted(tmp_path.rglob("*"))
    code, _, err = shell(*words, "--out", out)
    assert code == 2
    assert err.startswith(f"error: {out} ")
    assert re.search("there already|a folder already|holds other files|cannot be written", err)
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


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


def test_labels_that_mean_other_classes_are_refused(
    shell: Shell, folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ("invert", *colours(weights), "--steps", 1, *TINY, "--classes")
    for classes in ("red,blue", "blue,red", "0,1"):
        assert shell(*quick, classes, "--out", classes.replace(",", "-"))[0] == 3
    assert Inversion.load("red-blue").classes == ("red", "blue")
    measure = ("evaluate", *colours(weights), "--num-samples", 20, "--out", "x", "--inversion")
    for more in (("--data", folder), ("--inversion", "blue-red"), ("--inversion", "0-1", "--inversion", "blue-red")):
        code, _, err = shell(*measure, "red-blue", *more)
        assert code == 2
        assert "The classes of red-blue are red, blue, in this order, but those of " in err
        assert "are blue, red: give both the same names in the same order" in err
    assert shell(*quick, "red,green,blue", "--out", "three")[0] == 2
    assert not Path("x").exists()
    assert shell(*measure, "0-1", "--inversion", "blue-red")[0] == 0


def test_a_report_shows_every_evaluation_under_a_name_of_its_own(
    shell: Shell, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shell("invert", *colours(weights), "--steps", 1, *TINY, "--out", "inversion")[0] == 3
    other = (*FACTORY, "--argument", "num_classes=2")
    for name, model in (("runA", colours(weights)), ("runB", colours(weights)), ("other", other)):
        measure = ("evaluate", *model, "--num-samples", 20, "--inversion", "inversion", "--out", f"{name}/eval")
        assert shell(*measure)[0] == 0
    folders = ("runA/eval", "runB/eval", "other/eval")
    first, second = read_evaluations([Path(name) for name in folders])
    assert [e.variant for e in first.variants] == ["runA/eval", "runB/eval"]
    assert [e.variant for e in second.variants] == ["other/eval"]
    assert first.name == f"zoo:ConvNet, {weights}"
    assert second.name == "zoo:ConvNet"
    assert robustness_table(first.variants).columns == ["runA/eval", "runB/eval", "noise"]
    assert shell("report", *folders, "--out", "report.html")[0] == 0
    page = Path("report.html").read_text()
    assert page.count('<section class="set"') == 2
    for place, name in ((0, "runA/eval"), (1, "runB/eval"), (0, "other/eval")):
        assert f'class="variant other-{place}">{name}</h3>' in page  # told apart by lines of their own
    assert "zoo:ConvNet" in page
    code, _, err = shell("report", "runA/eval", "runB/../runA/eval", "--out", "x.html")
    assert code == 2
    assert "is named twice: name each folder once" in err

    tiny = ("images=100", "measured=100", "concepts=2", "ascent_steps=1", "resamples=100")
    small = ("dictionary.units=8", "dictionary.active=3", "dictionary.steps=2")
    settings = [word for setting in (*tiny, *small) for word in ("--set", setting)]
    for source in (colours(weights), (*FACTORY, "--argument", "num_classes=3")):
        made = "inversion" if source == colours(weights) else "three"
        if made == "three":
            assert shell("invert", *source, "--steps", 1, *TINY, "--out", made)[0] == 3
        assert shell("interpret", *source, "--inversion", made, *settings, "--out", f"learned-{made}")[0] == 0
    with_chapter = ("report", "runA/eval", "runB/eval", "--interpretation", "learned-inversion", "--out", "with.html")
    assert shell(*with_chapter)[0] == 0
    assert "What the classifier has learned" in Path("with.html").read_text()
    assert "What the classifier has learned" not in page
    for words, message in (
        ((*folders, "--interpretation", "learned-inversion"), "are of 2 models: name those of the one that was"),
        (("runA/eval", "--interpretation", "learned-three"), "learned-three interprets another model"),
        (("runA/eval", "--interpretation", "nowhere"), "nowhere/interpretation.json is not readable"),
    ):
        code, _, err = shell("report", *words, "--out", "refused.html")
        assert code == 2
        assert message in err
    assert not Path("refused.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "zoo:ConvNet", "--image-shape", "3x8x8"), "--image-shape '3x8x8' is no list of numbers"),
        (("check", "zoo:ConvNet"), "zoo:ConvNet does not tell the shape of its images: give image_shape"),
        (("check", "zoo:ConvNet", "--image-shape", "3,8"), "--image-shape '3,8' is not channels, height, width"),
        (("check", *FACTORY, "--mean", "127,127,127", "--std", "58,58,58"), "divide by 255 what is above 1"),
        (("evaluate", *FACTORY, "--inversion", "x", "--evaluator-set", "mean=0.5", "--out", "y"), "with --evaluator."),
        (("check", *FACTORY, "--mean", "0.5"), "mean and std are given together"),
        (("check", *FACTORY, "--data", "nowhere"), "nowhere"),
        (("check", "zoo:ConvNet", "--image-shape", "3,8,8", "--device", "warp"), "The device 'warp' cannot be used"),
        (("check", "torchvision:resnet19", "--image-shape", "3,8,8"), "has no classifier 'resnet19'"),
        (
            ("invert", *FACTORY, "--out", "x", "--set", "gama=1"),
            "--set.gama is not a known key (there are: steps, batch",
        ),
        (
            ("invert", *FACTORY, "--out", "x", "--set", "generator.depth=3"),
            "--set generator.depth is not a known key (there are: conditioning, latent_dim, hidden_dim, width, max",
        ),
        (("invert", *FACTORY, "--out", "x", "--set", "generator.width=wide"), "--set generator.width: expected"),
        (("invert", *FACTORY, "--out", "x", "--set", "gamma"), "has no name and value"),
        (("invert", *FACTORY, "--out", "x", "--num-classes", "3"), "10 scores for each image, but num_classes is 3"),
        (("invert", *FACTORY), "Missing option '--out'"),
        (("invert", *FACTORY, "--out", "x", "--variant", "bold"), "'bold' is not one of 'standard', 'robust'"),
        (
            ("evaluate", *FACTORY, "--inversion", "nowhere", "--out", "x"),
            "nowhere/inversion.json is not readable (No such file",
        ),
        (
            ("export", "nowhere", "--out", "x.onnx"),
            "nowhere/inversion.json is not readable (No such file",
        ),
        (("report", "nowhere", "--out", "x.html"), "nowhere/results.json"),
    ],
)
def test_one_sentence_says_what_is_wrong(
    words: tuple[str, ...], message: str, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = shell(*words)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_source_has_all_its_settings() -> None:
    source, device = parse_source(
        {
            "model": "zoo:NamedOutput",
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
    pairs = ("weights=w.pt", "argument=depth=3", "argument=k=2", "mean=0.5", "std=0.25", "output_entry=1")
    source = parse_evaluator("zoo:ConvNet", (*pairs, "num-classes=2", "output=sigmoid"), (1, 8, 8), "cpu")
    assert source.model_dump(exclude_defaults=True) == {
        "model": "zoo:ConvNet",
        "weights": "w.pt",
        "arguments": {"depth": 3, "k": 2},
        "image_shape": (1, 8, 8),
        "num_classes": 2,
        "adapter": {"mean": (0.5,), "std": (0.25,), "output_entry": 1, "output": "sigmoid"},
    }
    for pair in ("mean", "meen=0.5", "device=cpu"):
        with pytest.raises(InputError, match=f"--evaluator-set '{pair}' is no option of an evaluator: .* weights, "):
            parse_evaluator("zoo:ConvNet", (pair,), (1, 8, 8), "cpu")


def test_a_given_evaluator_judges_as_it_is_told_to(
    shell: Shell, weights: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shell("invert", *colours(weights), "--steps", 1, *TINY, "--out", "inversion")[0] == 3
    judge = ["--evaluator", "zoo:ConvNet"]
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
    with pytest.raises(InputError, match="write it like NAME=VALUE"):
        parse_pairs(("=1",), "--set")
    with pytest.raises(InputError, match=r"^--set gives a twice: give it one value\.$"):
        parse_pairs(("a=1", "b=2", "a=3"), "--set")


@pytest.mark.parametrize(("text", "entry"), [("1", 1), ("logits", "logits"), ("²", "²")])
def test_an_entry_is_a_place_or_a_name(text: str, entry: int | str) -> None:
    assert parse_source({"model": "zoo:ConvNet", "output_entry": text})[0].adapter.output_entry == entry


def test_shell_completion_knows_the_commands(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from netinv.app import main; main()"],
        cwd=root,
        env={"_NETINV_COMPLETE": "bash_complete", "COMP_WORDS": "netinv ch", "COMP_CWORD": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "plain,check"


def test_torchvisions_data_become_what_data_takes(shell: Shell, tmp_path: Path) -> None:
    code, out, _ = shell("fetch", "digits", "--out", tmp_path / "digits", "--json")
    assert code == 0
    assert json.loads(out)["train"] == 1442
    assert len(read_data(tmp_path / "digits", (1, 16, 16)).train.labels) == 1442
    code, _, err = shell("fetch", "digitz", "--out", tmp_path / "x")
    assert (code, "Unknown data set 'digitz': known are cifar10, digits" in err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_an_inversion_remembers_its_classifier(
    shell: Shell, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("blob").write_bytes(weights.read_bytes())  # as in the cache of a hub: a link has the name
    Path("net.safetensors").symlink_to("blob")
    assert shell("invert", *colours(Path("net.safetensors")), "--steps", 1, *TINY, "--out", "inversion")[0] == 3
    kept = Inversion.load("inversion").source
    assert kept is not None
    assert (kept.model, kept.weights) == ("zoo:ConvNet", str(Path.cwd() / "net.safetensors"))
    arguments = [word for name, value in kept.arguments.items() for word in ("--argument", f"{name}={value}")]
    measure = ("evaluate", "inversion", "--num-samples", 20, "--out")
    code, _, err = shell(*measure, "x", *arguments)
    assert (code, "asks to call zoo:ConvNet with" in err) == (2, True)
    assert shell(*measure, "there", "--factory", "zoo:ConvNet", *arguments)[0] == 0
    assert load_results(Path("there/results.json")).headline["inversion_accuracy"]
    code, _, err = shell(*measure, "x", "--factory", "zoo:ConvNet", "--mean", "0,0,0", "--std", "1,1,1")
    assert (code, "leave that out, or name the classifier" in err) == (2, True)
    code, _, err = shell("evaluate", *colours(weights), "--out", "x")
    assert (code, "Missing option '--inversion'" in err) == (2, True)


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
