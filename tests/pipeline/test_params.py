"""params.yaml is refused before any work, in words that name the key, the expectation and the value."""

import copy
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from dvc.utils.hydra import apply_overrides
from pydantic import BaseModel
from ruamel.yaml import YAML

from netinv.audit import Policy
from netinv.core import VARIANTS, InputError
from netinv.inversion import variant_config
from pipeline.check import main
from pipeline.params import GeneratorParams, RobustGenerator, load_params

RAY = {"num_workers": 1, "num_cpus": 1, "num_gpus": None, "checkpoint_every": 10, "storage": "folder"}

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def own(root: Path) -> dict[str, Any]:
    """What the repository's own params.yaml says, to be read a hundred times in no time."""
    values: dict[str, Any] = YAML(typ="safe", pure=True).load(root / "params.yaml")
    return values


@pytest.fixture
def edited(own: dict[str, Any], tmp_path: Path) -> Callable[[Edit], Path]:
    """A copy of the repository's own params.yaml with one edit."""

    def write(edit: Edit) -> Path:
        values = copy.deepcopy(own)
        edit(values)
        path = tmp_path / "params.yaml"
        YAML(typ="safe", pure=True).dump(values, path)
        return path

    return write


def test_the_repositorys_own_file_is_valid(root: Path) -> None:
    params = load_params(root / "params.yaml")
    assert params.datasets == ("digits",)
    for name in ("digits", "mnist", "fashion_mnist", "svhn", "cifar10"):
        settings = params.for_dataset(name)
        assert settings.invert.standard.perturbation == "none"
        assert settings.invert.robust.epsilon > 0
        assert settings.train.classifier.architecture.kind != settings.train.evaluator.architecture.kind
        assert settings.train.classifier.seed != settings.train.evaluator.seed


def test_data_sets_that_are_to_be_are_checked_in_place_of_those_that_are(
    edited: Callable[[Edit], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a wrong name is not written, and a right one mends it. What is not named is not among the evaluations."""
    monkeypatch.chdir(edited(lambda values: values.update(datasets=["digts"], variants=["standard"])).parent)
    for folder in ("digits/standard", "digits/robust", "svhn/standard"):
        Path("evaluation", folder).mkdir(parents=True)

    def check(datasets: str) -> Result:
        return CliRunner().invoke(main, ["--evaluated", "--datasets", datasets])

    assert (told := check("digits, mnist")).stdout == "evaluation/digits/standard\n", told.stderr
    for wrong in ("", "digits mnist"):
        assert (check(wrong).exit_code, check(wrong).stdout) == (2, "")


def set_key(path: str, value: Any) -> Edit:
    """An edit that sets one dotted key."""

    def edit(values: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for part in parents:
            values = values[part]
        values[last] = value

    return edit


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("invert.standard.steps", -5, r"invert\.standard\.steps: expected greater than or equal to 1, got -5"),
        ("invert.standard.steps", "many", r"invert\.standard\.steps: expected a valid integer, got 'many'"),
        ("invert.standard.steps", "400", r"invert\.standard\.steps: expected a valid integer, got '400'"),
        ("invert.standard.stepz", 5, r"invert\.standard\.stepz is not a known key \(there are: steps, "),
        ("invert.standrad", {}, r"invert\.standrad is not a known key \(there are: common, standard, robust\)$"),
        ("invert.robust.norm", "l7", r"invert\.robust\.norm: expected 'linf' or 'l2', got 'l7'"),
        ("invert.robust.epsilon", 0.0, r"invert\.robust: a perturbation needs an epsilon above 0"),
        ("invert.standard.sharpness", [3.0, 1.0], r"invert\.standard\.sharpness: expected a range"),
        ("invert.common.generator.dropout", 1.5, r"invert\.common\.generator\.dropout: expected less than 1, got 1.5"),
        (
            "invert.common.num_generators",
            0,
            r"num_generators: expected greater than or equal to 1, got 0",
        ),
        (
            "presets.default.train.classifier.training.epochs",
            None,
            r"presets\.default\.train\.classifier\.training\.epochs",
        ),
        ("datasets", ["imagenet"], r"unknown data set 'imagenet'; known are .*digits.*mnist"),
        ("datasets", [], r"datasets: expected at least 1 item, got \[\]$"),
        ("datasets", [1], r"datasets\.0: expected a valid string, got 1$"),
        ("datasets", "digits", r"datasets: expected a list, got 'digits'$"),
        ("datasets", ["digits", "digits"], "datasets: digits is there more than once"),
        ("variants", ["robust", "robust"], "variants: robust is there more than once"),
        ("ray", {"cpus\nerror: of another kind": 1}, r"ray\.'cpus\\nerror: of another kind' is not a known key"),
        ("ray.num_cpus", float("inf"), r"params\.yaml: ray\.num_cpus: inf is no setting, numbers are finite"),
        ("evaluate.seed", 2**63, r"evaluate\.seed: a whole number of 64 bits is no setting"),
        ("variants", ["sturdy"], r"variants\.0: expected 'standard' or 'robust', got 'sturdy'"),
        ("presets.mnist.invert.robust", {"epsilon": -1.0}, r"presets\.mnist\.invert\.robust\.epsilon: expected"),
        ("presets.mnist.invert.robust", {"epsilom": 0.1}, r"presets\.mnist\.invert\.robust\.epsilom is not"),
        (
            "ablation.conditions.robust",
            {"variant": "robust", "inversion": {"gama": 1}},
            r"robust\.inversion\.gama is not",
        ),
        (
            "ablation.conditions.robust",
            {"variant": "robust", "generator": {"dropout": 2}},
            r"robust\.generator\.dropout",
        ),
        ("ablation.num_seeds", 1, r"ablation\.num_seeds: expected greater than or equal to 2, got 1"),
        ("ray.num_cpus", 0, r"ray\.num_cpus: expected greater than or equal to 0\.01, got 0"),
        ("ray.num_gpus", 1.5, r"num_gpus is 0, a share from 0\.0001 to 1 or a whole number, not 1\.5"),
        ("ray.num_gpus", 0.00001, r"num_gpus is 0, a share .* not 1e-05"),
        ("ray", {**RAY, "num_workers": 2, "num_gpus": 0.5}, r"several workers of one generator need whole GPUs"),
        ("ray", {**RAY, "num_workers": 2, "generators_per_worker": 2}, r"workers share one generator or train several"),
        ("ray.generators_per_worker", 0, r"ray\.generators_per_worker: expected greater than or equal to 1, got 0"),
        ("tune.robust", {"gamma": {"low": 2.0, "high": 1.0}}, r"tune\.robust\.gamma\.range: a range needs low < high"),
        ("tune.robust", {"gamma": {"low": 0.0, "high": 1.0, "log": True}}, r"a logarithmic range needs low > 0"),
        ("tune.robust", {"gamma": {"choices": [1.0]}}, r"tune\.robust\.gamma\.choices\.choices: .* at least 2 items"),
        ("tune.robust", {"gamma": 3}, r"tune\.robust\.gamma\.range: expected"),
        ("ray.num_workers", 3, r"digits, standard: 3 workers \(ray\.num_workers\) cannot share a batch of 64 equally"),
        (
            "presets.digits",
            {"train": {}},
            r"presets\.digits lacks keys that DVC looks for: .*`digits: \{train: \{\}, inv",
        ),
        (
            "presets.mnsit",
            {"invert": {"robust": {"epsilon": 0.1}}},
            r"presets: mnsit is no data set; there are",
        ),
        ("evaluate.distillation.sharpness", [20.0, 1.0], r"distillation\.sharpness: expected a range \(low, high\)"),
        ("fetch.folders", {"-x": {"path": "x", "image_shape": [1, 8, 8]}}, r"fetch\.folders\.-x"),
        ("tune.num_trials", 0, r"tune\.num_trials: expected greater than or equal to 1"),
    ],
)
def test_a_bad_value_is_refused(edited: Callable[[Edit], Path], key: str, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        load_params(edited(set_key(key, value)))
    assert "\n" not in str(error.value)


def test_settings_of_a_variant_that_is_not_run_do_not_matter(edited: Callable[[Edit], Path]) -> None:
    def edit(values: dict[str, Any]) -> None:
        values["variants"] = ["standard"]
        values["ray"]["num_workers"] = 3
        values["invert"]["standard"]["batch_size"] = 96

    assert load_params(edited(edit)).ray.num_workers == 3


def test_a_missing_key_is_named(edited: Callable[[Edit], Path]) -> None:
    with pytest.raises(InputError, match=r"presets\.default\.invert\.common is required, but was not given"):
        load_params(edited(lambda values: values["presets"]["default"]["invert"].pop("common")))


def test_a_preset_overrules_its_data_set_and_no_other(edited: Callable[[Edit], Path]) -> None:
    params = load_params(edited(set_key("presets.mnist.invert.robust", {"epsilon": 0.125})))
    general = params.for_dataset("default").invert.robust
    assert params.for_dataset("mnist").invert.robust == general.model_copy(update={"epsilon": 0.125})
    assert params.for_dataset("mnist").invert.robust.epsilon == 0.125


@pytest.mark.parametrize("value", [0.15, 0.1, 0.2])  # 0.1 is the default, 0.2 that of the preset of mnist
def test_what_is_set_for_every_data_set_overrules_its_preset(edited: Callable[[Edit], Path], value: float) -> None:
    params = load_params(edited(set_key("invert.robust.epsilon", value)))
    for name in ("mnist", "svhn", "digits"):
        assert params.for_dataset(name).invert.robust.epsilon == value
    assert params.for_dataset("mnist").invert.robust.gamma == 1.0


OF_ONES_OWN = {
    "train": "compared with the settings of a data set",
    "invert": "likewise",
    "presets": "likewise; those of a data set hold what differs",
    "fetch.folders": "names of data sets",
    "ablation.conditions": "names of conditions, each with what it changes",
    "tune.standard": "what is searched of the settings of a variant",
    "tune.robust": "likewise",
}
"""Mappings whose keys are not those of a configuration, and why."""


def test_every_setting_is_in_the_file(root: Path) -> None:
    """Every field of every configuration, where a `null` does not leave out the whole of it: DVC sets no others."""
    values = YAML(typ="safe", pure=True).load(root / "params.yaml")
    free = set()

    def compare(config: BaseModel, written: dict[str, Any], where: str) -> None:
        assert set(written) == set(type(config).model_fields), where
        for name in type(config).model_fields:
            part = getattr(config, name)
            if isinstance(part, BaseModel):
                compare(part, written[name], f"{where}{name}.")
            elif isinstance(part, dict):
                free.add(f"{where}{name}")

    params = load_params(root / "params.yaml")
    compare(params, values, "")
    assert free == set(OF_ONES_OWN)
    default = params.for_dataset("default")
    compare(default, values["presets"]["default"], "presets.default.")
    compare(default, {"train": values["train"], "invert": values["invert"]}, "general.")


def test_the_limits_of_the_audit_are_the_default_ones(root: Path) -> None:
    assert load_params(root / "params.yaml").audit.policy == Policy()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("invert.robust.epsilon", 0.15),
        ("invert.common.generator.bending", 0.02),
        ("train.classifier.source", "none"),
        ("audit.policy.membership.max_auc", 0.7),
        ("ablation.evaluate.seed", 1),
        ("presets.digits.invert.robust.epsilon", 0.2),
    ],
)
def test_dvc_rewrites_no_line_but_that_of_the_setting(root: Path, tmp_path: Path, key: str, value: Any) -> None:
    """As ``dvc exp run --set-param``, which writes the whole file anew: nulls, lists, long lines in its own form."""
    before = (root / "params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(before)
    apply_overrides(path, [f"{key}={value}"])
    changed = [line for line in difflib.ndiff(before.splitlines(), path.read_text().splitlines()) if line[0] in "+-"]
    name = key.split(".")[-1]
    assert [line[2:].split(":")[0].strip() for line in changed if line[0] == "+"] == [name]
    assert [line[2:].split(":")[0].strip() for line in changed if line[0] == "-"] in ([], [name])
    load_params(path)


def test_the_variants_are_those_of_the_library(root: Path) -> None:
    """Their values stand in the file to be seen, and to have DVC see a change; the library is where they come from."""
    invert = load_params(root / "params.yaml").for_dataset("default").invert
    assert {name: getattr(invert, name) for name in VARIANTS} == {name: variant_config(name) for name in VARIANTS}
    assert len(VARIANTS) == 2  # dvc.yaml names the first and the last where all are read


def test_an_architecture_of_another_kind_is_replaced_whole(edited: Callable[[Edit], Path]) -> None:
    architecture = {"kind": "residual", "channels": [8, 16]}
    params = load_params(edited(set_key("presets.digits.train", {"classifier": {"architecture": architecture}})))
    assert params.for_dataset("digits").train.classifier.architecture.channels == (8, 16)


def test_configurations_are_frozen(root: Path) -> None:
    params = load_params(root / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.for_dataset("mnist").invert.robust.epsilon = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("invert.robust.lr", 1e9, r"invert\.robust\.lr: expected less than or equal to 1"),
        ("invert.robust.epsilon", 1.5, r"an epsilon above 1 in the norm linf"),
        ("invert.robust.sharpness", [1.0, 1e9], r"invert\.robust\.sharpness\.1: expected less than"),
        ("invert.common.generator.width", 128, r"width is 128, above max_width, its bound of 64"),
        ("train.classifier.seed", 2**62, r"train\.classifier\.seed: expected less than or equal to 2147483647"),
        ("train.classifier.architecture.channels", [10**9], r"channels\.0: expected less than or equal to 4096"),
        ("train.classifier.architecture.channels", [8] * 60, r"channels: .* at most 12 items"),
        ("evaluate.epsilons", [0.1, 1.5], r"epsilons\.1: expected less than or equal to 1"),
        ("evaluate.epsilons", [0.1, 0.1], r"epsilons: 0\.1 is there more than once"),
        ("export.forms", ["int8", "int8"], r"forms: int8 is there more than once"),
        ("ray.num_cpus", 1e-9, r"ray\.num_cpus: expected greater than or equal to 0\.01"),
        ("ray.storage", "", r"ray\.storage: .* at least 1 character"),
        ("tune.robust", {"gamma": {"low": 0.0, "high": 1e18}}, r"high: expected less than or equal to 1000000"),
        ("train.classifier.epochs", None, r"train\.classifier\.epochs is not a known key"),
        ("invert.common.generator.widht", None, r"invert\.common\.generator\.widht is not a known key"),
        ("train.classifier.architecture.depth", None, r"train\.classifier\.architecture\.depth is not a known key"),
        ("train.classifier.source", {"model": "a:b", "wights": None}, r"source\.wights is not a known key"),
    ],
)
def test_a_senseless_value_is_refused(edited: Callable[[Edit], Path], key: str, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_params(edited(set_key(key, value)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.classifier.source", {"model": "a:b", "arguments": {"pretrained": None}}),
        ("train.classifier.architecture.kind", "residual"),
        ("invert.robust.norm", "l2"),
    ],
)
def test_null_where_anything_may_stand_is_no_unknown_key(edited: Callable[[Edit], Path], key: str, value: Any) -> None:
    load_params(edited(set_key(key, value)))


def test_of_many_bad_keys_ten_are_named(edited: Callable[[Edit], Path]) -> None:
    with pytest.raises(InputError, match=r"k17 is not a known key; and \d+ more") as error:
        load_params(edited(set_key("evaluate", {f"k{i}": "x" * 500 for i in range(40)})))
    assert str(error.value).count("is not a known key") == 10
    with pytest.raises(InputError, match=r"unknown data set 'xxx.*characters") as error:
        load_params(edited(set_key("datasets", ["x" * 5000])))
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize("name", ["bending", "softening", "toning"])
def test_robust_generators_have_something_of_their_own(root: Path, name: str) -> None:
    common = load_params(root / "params.yaml").for_dataset("digits").invert.common
    common = common.model_copy(update={"generator": common.generator.model_copy(update={name: 0.05})})

    def with_own(value: float | None) -> GeneratorParams:
        own = dict.fromkeys(RobustGenerator.model_fields) | {name: value}
        return common.model_copy(update={"robust_generator": RobustGenerator.parse(own)})

    for value in (0.07, 0.0):
        assert with_own(value).architecture("robust") == common.generator.model_copy(update={name: value})
    assert with_own(0.07).architecture("standard") == common.generator
    assert with_own(None).architecture("robust") == common.generator


def test_conditions_of_the_ablation_are_bent_as_their_variant_is(root: Path) -> None:
    conditions = load_params(root / "params.yaml").ablation_of("digits")
    assert conditions["robust"][0].bending == 0.04
    assert conditions["standard"][0].bending == 0.0


def test_the_documented_folder_has_every_key_that_dvc_looks_for(edited: Callable[[Edit], Path], root: Path) -> None:
    text = (root / "docs/data.md").read_text()
    documented = YAML(typ="safe", pure=True).load(text[text.index("datasets: [pets]") :].partition("```")[0])

    def edit(values: dict[str, Any]) -> None:
        values["datasets"] = documented["datasets"]
        values["fetch"]["folders"] = documented["fetch"]["folders"]
        values["presets"] |= documented["presets"]
        values["audit"]["datasets"] = []

    path = edited(edit)
    assert load_params(path).for_dataset("pets") == load_params(path).for_dataset("default")
    values = YAML(typ="safe", pure=True).load(path.read_text())
    stages = YAML(typ="safe", pure=True).load((root / "dvc.yaml").read_text())["stages"]
    keys = {key for stage in stages.values() for key in stage.get("params", ()) if isinstance(key, str)}
    assert any("${item.dataset}" in key for key in keys)
    for key in keys:
        for variant, model in (("standard", "classifier"), ("robust", "evaluator")):
            place = values
            for part in _filled(key, dataset="pets", variant=variant, model=model).split("."):
                assert part in place, key
                place = place[part]


def _filled(key: str, **item: str) -> str:
    for name, value in item.items():
        key = key.replace(f"${{item.{name}}}", value)
    return key
