"""The commands check, invert, evaluate and export, as typed in a shell."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from foreign_networks import ConvNet
from PIL import Image
from safetensors.torch import load_file, save_file
from shells import FACTORY, TINY, Shell, colours

from netinv import invert
from netinv.app import commands
from netinv.app.inversions import Inversion
from netinv.app.options import read_data
from netinv.core import InputError, memory
from netinv.inversion import variant_config
from netinv.report import read_evaluations
from netinv.report.tables import robustness_table
from netinv.results import Estimate, load_interpretation, load_results
from netinv.sampling import OnnxGenerator

pytestmark = pytest.mark.usefixtures("short_lessons")


def test_help_needs_no_torch(root: Path) -> None:
    code = "import sys, netinv.app.command as c; c.cli(['-h'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    for name in ("audit", "check", "invert", "sample", "evaluate", "export", "export-classifier", "fetch"):
        assert f"\n  {name} " in done.stdout


def test_check_tells_what_it_found(shell: Shell, folder: Path, weights: Path) -> None:
    code, out, err = shell("check", *colours(weights), "--data", folder)
    assert (code, err) == (0, "")
    assert "outputs     2 classes, logits, from " in out
    assert "features    24, the input of out" in out
    assert "accuracy    1.000 on 80 images" in out
    assert "error:" not in out


def test_a_check_tells_where_numbers_may_not_be_the_labels(
    shell: Shell, folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_data(folder, (3, 8, 8))._replace(classes=("1", "0"))
    monkeypatch.setattr(commands, "read_data", lambda *_: data)
    code, _, err = shell("check", *colours(weights), "--data", folder)
    assert code == 0
    assert err.startswith(f"warning: {folder}: Its classes are in the order 1, 0; if the labels of foreign_networks:")
    assert ": rename the folders, such as 00, 01 and so on" in err


def test_on_a_terminal_what_comes_next_is_told_where_nothing_is_missing(
    shell: Shell, weights: Path, tmp_path: Path
) -> None:
    shell.monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, _, err = shell("check", *colours(weights))
    assert err == "No error was found. Next: netinv invert, with the options of the model and --out\n"
    invert = ("invert", *colours(weights), *TINY, "--attempts", 1, "--out", tmp_path / "it", "--steps")
    for steps, expected in ((1, (3, False)), (60, (0, True))):
        code, _, err = shell(*invert, steps)
        assert (code, f"Next: netinv evaluate, with --inversion {tmp_path / 'it'}; or" in err) == expected


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
    code, out, told = shell(*invert, "--attempts", 1, "--out", tmp_path / "inversion")
    assert code == 3  # after two steps
    assert re.search(r"accuracy [\d.]+ on random conditions, [\d.]+ of the worst class by label, after 2 steps", out)
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
    factory = ("foreign_networks:ConvNet", "--argument", "in_channels=5", "--image-shape", "5,8,8", "--device", "cpu")
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
    with shell.monkeypatch.context() as terminal:
        terminal.setattr(sys.stdout, "isatty", lambda: True)
        code, printed, err = shell(*measure, results)
    assert code == 0
    assert err == f"Measures and pictures are in {results}. Next: netinv report {results} --out report.html\n"
    assert "evaluator accuracy           not measured: " in printed
    assert "vendi, classifier features" in printed
    assert "worst generator" not in printed  # it is the only one
    found = load_results(results / "results.json")
    headline, ensemble = found.headline, next(row for row in found.rows if row.name == "ensemble")
    assert f"\nvendi, pixels                {ensemble.measures['vendi_pixels']}\n" in printed
    accuracy = headline["inversion_accuracy"]
    assert isinstance(accuracy, Estimate)
    assert accuracy.value > 0.7
    code, printed, err = shell(*measure, tmp_path / "again", "--json")
    assert not err
    told = json.loads(printed)
    assert told["headline"]["inversion_accuracy"] == headline["inversion_accuracy"].model_dump()
    assert 1 <= told["classifier_vendi"][0] <= 24
    assert told["vendi_pixels"] == ensemble.measures["vendi_pixels"].model_dump()

    code, printed, _ = shell("report", results, "--out", tmp_path / "report.html")
    assert code == 0
    page = (tmp_path / "report.html").read_text()
    assert "Not measured" in page or "not measured" in page
    assert "no real test images were given" in page or "no evaluator" in page
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
    monkeypatch.setattr(memory, "USUAL_PIXELS", 8)  # so that images of 8 x 8 are large
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
    real = next(row for row in found.rows if row.name == "real_test")
    accuracy, own = found.headline["evaluator_accuracy"], real.measures["evaluator_accuracy"]
    assert isinstance(accuracy, Estimate)
    assert isinstance(own, Estimate)
    assert (accuracy.n, own.value > 0.75) == (60, True)
    assert found.settings["privacy_pool"] == 5000 // 8


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
    code, printed, _ = shell(*measure, "0-1", "--inversion", "blue-red")
    assert code == 0
    assert "worst generator, inversion   " in printed


def test_a_report_shows_every_evaluation_under_a_name_of_its_own(
    shell: Shell, folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert first.name == f"foreign_networks:ConvNet, {weights}"
    assert second.name == "foreign_networks:ConvNet"
    assert robustness_table(first.variants).columns == ["runA/eval", "runB/eval", "noise"]
    assert shell("report", *folders, "--out", "report.html")[0] == 0
    page = Path("report.html").read_text()
    assert page.count('<section class="set"') == 2
    for place, name in ((0, "runA/eval"), (1, "runB/eval"), (0, "other/eval")):
        assert f'class="variant other-{place}">{name}</h3>' in page  # told apart by lines of their own
    assert "foreign_networks:ConvNet" in page
    code, _, err = shell("report", "runA/eval", "runB/../runA/eval", "--out", "x.html")
    assert code == 2
    assert "is named twice: name each folder once" in err

    tiny = ("images=100", "measured=100", "concepts=2", "ascent_steps=1", "resamples=100")
    small = ("dictionary.units=8", "dictionary.active=3", "dictionary.steps=2")
    settings = [word for setting in (*tiny, *small) for word in ("--set", setting)]
    three = (*FACTORY, "--argument", "num_classes=3")
    assert shell("invert", *three, "--steps", 1, *TINY, "--out", "three")[0] == 3
    judge = ("--evaluator", FACTORY[0], "--evaluator-set", "num_classes=2", "--evaluator-set", "argument=num_classes=2")
    real = (*colours(weights), "--data", folder, *judge)
    for made, words in (("inversion", real), ("three", three)):
        assert shell("interpret", *words, "--inversion", made, *settings, "--out", f"learned-{made}")[0] == 0
    learned = load_interpretation(Path("learned-inversion"))
    assert learned.classes == ("blue", "red")
    (told,) = read_evaluations([Path("runA/eval")], Path("learned-inversion"))  # whose classes have numbers alone
    assert told.interpretation is not None
    assert told.interpretation.results.classes == ("0", "1")
    Path("wide").mkdir()
    wide = learned.model_copy(update={"image_shape": (3, 8, 9)}).model_dump_json()
    Path("wide/interpretation.json").write_text(wide)
    with_chapter = ("report", "runA/eval", "runB/eval", "--interpretation", "learned-inversion", "--out", "with.html")
    assert shell(*with_chapter)[0] == 0
    assert "What the classifier has learned" in Path("with.html").read_text()
    assert "What the classifier has learned" not in page
    for words, message in (
        ((*folders, "--interpretation", "learned-inversion"), "are of 2 models: name those of the one that was"),
        (("runA/eval", "--interpretation", "learned-three"), "learned-three knows 3 classes, but the evaluation 2"),
        (("runA/eval", "--interpretation", "wide"), "wide interprets another model: its images have"),
        (("runA/eval", "--interpretation", "nowhere"), "nowhere/interpretation.json is not readable"),
    ):
        code, _, err = shell("report", *words, "--out", "refused.html")
        assert code == 2
        assert message in err
    assert not Path("refused.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("check", "foreign_networks:ConvNet", "--image-shape", "3x8x8"),
            "--image-shape '3x8x8' is no list of numbers",
        ),
        (
            ("check", "foreign_networks:ConvNet"),
            "foreign_networks:ConvNet does not tell the shape of its images: give image_shape (--image-shape).",
        ),
        (
            ("check", "foreign_networks:ConvNet", "--image-shape", "3,8"),
            "--image-shape '3,8' is not channels, height, width",
        ),
        (("check", *FACTORY, "--mean", "127,127,127", "--std", "58,58,58"), "divide by 255 what is above 1"),
        (("evaluate", *FACTORY, "--inversion", "x", "--evaluator-set", "mean=0.5", "--out", "y"), "with --evaluator."),
        (("check", *FACTORY, "--mean", "0.5"), "mean and std are given together"),
        (("check", *FACTORY, "--data", "nowhere"), "nowhere"),
        (
            ("check", "foreign_networks:ConvNet", "--image-shape", "3,8,8", "--device", "warp"),
            "The device 'warp' cannot be used",
        ),
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
            "nowhere/inversion.json is not readable (No such file or directory): invert first, or name another folder.",
        ),
        (
            ("export", "nowhere", "--out", "x.onnx"),
            "nowhere/inversion.json is not readable (No such file or directory): invert first, or name another folder.",
        ),
        (("export", __file__, "--out", "x.onnx"), ".py is a file: name a folder that has inversion.json in it."),
        (("report", "nowhere", "--out", "x.html"), "): evaluate first, or name another folder."),
        (("report", "results", "--out", "results.json"), "results.json has no name that ends in .html or .htm: name"),
        (("export", "inversion", "--out", "w.safetensors"), "w.safetensors has no name that ends in .onnx: name such"),
        (("export-classifier", *FACTORY, "--out", "w.pt"), "w.pt has no name that ends in .onnx: name such a file."),
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
