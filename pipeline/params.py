"""``params.yaml`` as typed, frozen, validated configurations. The only reader of that file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from netinv.audit import Policy, Verdict
from netinv.classifiers import ClassifierConfig, ClassifierSource, ClassifierTrainingConfig
from netinv.core import (
    VARIANTS,
    AttackSteps,
    Attempts,
    Bending,
    Config,
    Count,
    Cpus,
    Few,
    Gpus,
    InputError,
    Members,
    Number,
    Seed,
    Share,
    Softening,
    Steps,
    Variant,
    read_yaml,
)
from netinv.data import BUILT_IN, FetchConfig
from netinv.evaluation import EvaluationConfig
from netinv.export import ExportConfig
from netinv.generators import GeneratorConfig
from netinv.interpretation import InterpretationConfig
from netinv.inversion import InversionConfig
from pipeline.layers import at, expect_known, given, overlaid


class ModelParams(Config):
    """One classifier: what it is and how it is trained."""

    seed: Seed
    architecture: ClassifierConfig
    training: ClassifierTrainingConfig
    source: ClassifierSource | None = None
    """A network that exists already, to be taken in place of training one; then the settings above mean nothing."""


class TrainParams(Config):
    """The two classifiers of a data set."""

    classifier: ModelParams
    """The network to be inverted."""
    evaluator: ModelParams
    """An independent judge, of another architecture and seed, that no generator ever sees."""


class RobustGenerator(Config):
    """What standard generators are worse for: it takes the place of ``generator``'s own, where it is not null."""

    bending: Bending | None
    softening: Softening | None
    toning: Share | None
    negatives: bool | None


class GeneratorParams(Config):
    """What both variants share."""

    num_generators: Members
    """Generators of a variant, the columns of the paper's Figure 2."""
    seed: Seed
    """Seed of the first generator; the next ones count up from it."""
    attempts: Attempts
    """How often each is trained at most, while it cannot draw a class; every attempt has seeds of its own."""
    generator: GeneratorConfig
    robust_generator: RobustGenerator
    """What differs in the robust variant."""

    def architecture(self, variant: str) -> GeneratorConfig:
        """That of the generators of a variant."""
        robust = self.robust_generator.model_dump() if variant == "robust" else {}
        own = {name: value for name, value in robust.items() if value is not None}
        return GeneratorConfig.parse({**self.generator.model_dump(mode="json"), **own})


class InvertParams(Config):
    """Inversion in both variants."""

    common: GeneratorParams
    standard: InversionConfig
    robust: InversionConfig


class RayParams(Config):
    """What one generator needs of the cluster. Changes nothing in the results, so no stage depends on it."""

    num_workers: Members
    """Workers that share the batch of one generator, each with the CPUs and GPUs below."""
    num_cpus: Cpus
    num_gpus: Gpus | None
    """A share of a GPU, or several; ``null`` is one whole GPU where the cluster has any, and none where it has not."""
    generators_per_worker: Members | None = None
    """Generators that a worker trains as one program; ``null`` is one on CPUs, and on GPUs so many that none waits."""
    checkpoint_every: Steps
    """Steps after which a generator's state is kept, at the next record: what a fault costs at most."""
    storage: str = Field(min_length=1)
    """Where it is kept while the stage runs: a folder, or any URL that fsspec knows, such as s3://bucket/path."""

    @model_validator(mode="after")
    def _consistent(self) -> "RayParams":
        if (gpus := self.num_gpus or 0) % 1 and not 0.0001 <= gpus < 1:
            raise ValueError(f"num_gpus is 0, a share from 0.0001 to 1 or a whole number, not {gpus:g}")
        if self.num_workers > 1 and self.num_gpus and self.num_gpus % 1:
            raise ValueError("several workers of one generator need whole GPUs: set num_gpus to null, 0 or 1")
        if self.num_workers > 1 and (self.generators_per_worker or 1) > 1:
            raise ValueError(
                "workers share one generator or train several: set num_workers or generators_per_worker to 1"
            )
        return self


class AuditParams(Config):
    """The gate of ``netinv audit`` in the pipeline."""

    datasets: Few[str]
    """What is audited: none, or some of the pipeline's data sets."""
    stop_at: Literal["fail", "investigate", "never"]
    """The mildest verdict that ends the pipeline, after the record is written."""
    policy: Policy
    """Its limits."""

    @property
    def stopping(self) -> tuple[Verdict, ...]:
        """Verdicts that end the pipeline."""
        grave: dict[str, tuple[Verdict, ...]] = {"fail": ("fail",), "investigate": ("investigate", "fail")}
        return grave.get(self.stop_at, ())


class ConditionParams(Config):
    """One condition of the ablation: a variant, and what is changed of it."""

    variant: Variant
    generator: dict[str, Any] = Field(default_factory=dict)
    """Laid over the generator's settings."""
    inversion: dict[str, Any] = Field(default_factory=dict)
    """Laid over the variant's settings."""


class AblationParams(Config):
    """Which parts of the method are taken away, and how the rest is measured."""

    num_seeds: Annotated[int, Field(ge=2, le=1_000)]
    """Generators of each condition; their seeds count up from ``invert.common.seed``."""
    steps: Steps
    """Of each generator, in place of its variant's."""
    evaluate: EvaluationConfig
    conditions: dict[str, ConditionParams] = Field(min_length=1)
    """By the name that tables give it."""


class Range(Config):
    """Numbers between two bounds, drawn evenly."""

    low: Number
    high: Number
    log: bool = False
    """Draw evenly by their logarithm."""

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not self.low < self.high:
            raise ValueError("a range needs low < high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range needs low > 0")
        return self


class Choices(Config):
    """Some values."""

    choices: Few[Annotated[int, Field(ge=-1_000_000, le=1_000_000)] | Number | str] = Field(min_length=2)


def _kind(part: Any) -> str:
    return "choices" if (isinstance(part, dict) and "choices" in part) or isinstance(part, Choices) else "range"


Space = dict[str, Annotated[Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_kind)]]
"""What a search may draw: keys of ``invert.<variant>``, and ``generator.<key>`` of ``invert.common``."""


class TuneParams(Config):
    """The search for a variant's settings, ``python -m pipeline.tune``. No stage depends on it."""

    num_trials: Count
    """Generators trained, many of them not to their end."""
    seed: Seed
    samples_per_class: Annotated[int, Field(ge=2, le=10_000)]
    """Images that a trial is measured on."""
    epsilon: Annotated[float, Field(gt=0, le=1)]
    """Bound of the attack that robustness is measured with; the same for all trials."""
    attack_steps: AttackSteps
    standard: Space
    robust: Space


class DatasetParams(Config):
    """The settings of one data set."""

    train: TrainParams
    invert: InvertParams


class Params(Config):
    """All of ``params.yaml``."""

    datasets: Few[str] = Field(min_length=1)
    variants: Few[Variant] = Field(min_length=1)
    fetch: FetchConfig
    train: dict[str, Any]
    """What holds for every data set, whatever its preset says; null leaves a value to the presets, and where it can be
    null itself, ``none`` makes it so."""
    invert: dict[str, Any]
    """Likewise."""
    evaluate: EvaluationConfig
    interpret: InterpretationConfig
    export: ExportConfig
    audit: AuditParams
    ablation: AblationParams
    ray: RayParams
    tune: TuneParams
    presets: dict[str, dict[str, Any]]
    """Values by data set, under the keys above; those of ``default`` hold where a data set's own say nothing."""

    def for_dataset(self, name: str) -> DatasetParams:
        """The settings of one data set: the default ones, below its own preset, below what holds for every data set.

        Raises:
            InputError: Names the key, with the layer that has an unknown key or an impossible value.
        """
        general = {"train": self.train, "invert": self.invert}
        expect_known(general, [DatasetParams])
        values = self.presets.get("default", {})
        DatasetParams.parse(values, where="presets.default")
        if name != "default" and name in self.presets:
            values = overlaid(values, self.presets[name])
            DatasetParams.parse(values, where=f"presets.{name}")
        # What is set of all generators holds for the robust ones, too: no preset's own of theirs stands in its way.
        set_of_all = (
            name for name in RobustGenerator.model_fields if at(general, f"invert.common.generator.{name}") is not None
        )
        own = {"invert": {"common": {"robust_generator": dict.fromkeys(set_of_all)}}}
        return DatasetParams.parse(overlaid(values, overlaid(own, self.overrides)))

    @property
    def overrides(self) -> dict[str, Any]:
        """What is set over the presets, for every data set."""
        return given({"train": self.train, "invert": self.invert}, [DatasetParams])

    def ablation_of(self, dataset: str) -> dict[str, tuple[GeneratorConfig, InversionConfig]]:
        """The settings of each condition of the ablation on a data set.

        Raises:
            InputError: A condition has unknown keys or impossible values.
        """
        params = self.for_dataset(dataset).invert
        invert = params.model_dump(mode="json")
        settings = {}
        for name, condition in self.ablation.conditions.items():
            where = f"ablation.conditions.{name}"
            architecture = params.common.architecture(condition.variant).model_dump(mode="json")
            generator = overlaid(architecture, condition.generator)
            inversion = overlaid(invert[condition.variant], {"steps": self.ablation.steps, **condition.inversion})
            settings[name] = (
                GeneratorConfig.parse(generator, where=f"{where}.generator"),
                InversionConfig.parse(inversion, where=f"{where}.inversion"),
            )
        return settings


def load_params(path: Path = Path("params.yaml"), datasets: Sequence[str] = ()) -> Params:
    """Read and validate all of ``params.yaml``, presets included, with ``datasets``, if any, in place of its own.

    Raises:
        InputError: Names the keys, what was expected and what was given.
    """
    values = read_yaml(path, "run the command in the repository's root, on settings that can be read")
    if datasets and isinstance(values, dict):
        values = {**values, "datasets": [*datasets]}
    params = Params.parse(values, where=str(path))
    _check_consistency(params, path)
    return params


def _check_consistency(params: Params, path: Path) -> None:
    """See that all of the settings can be used, before any work; the path is for messages.

    Raises:
        InputError: Names the keys.
    """
    known = {*BUILT_IN, *params.fetch.folders}
    for name in params.datasets:
        if name not in known:
            raise InputError(
                f"{path}: datasets: unknown data set {name!r}; known are {', '.join(sorted(known))}, "
                "and fetch.folders adds more."
            )
    if strange := sorted({*params.audit.datasets} - {*params.datasets}):
        raise InputError(f"{path}: audit.datasets: {', '.join(strange)} is none of datasets.")
    if strange := sorted({*params.presets} - known - {"default"}):
        raise InputError(
            f"{path}: presets: {', '.join(strange)} is no data set; there are {', '.join(sorted(known))}, and default."
        )
    for name in {*params.presets, *params.datasets}:
        params.for_dataset(name)
    for name in params.datasets:
        _expect_preset(params, name, path)
        params.ablation_of(name)
        for variant in params.variants:
            batch = getattr(params.for_dataset(name).invert, variant).batch_size
            expect_equal_shares(batch, params.ray.num_workers, f"{path}: {name}, {variant}: ")


def _expect_preset(params: Params, name: str, path: Path) -> None:
    """DVC ends at a stage that depends on a key that is not there, even one that would say nothing."""
    preset = params.presets.get(name, {})
    invert = preset.get("invert") or {}
    if "train" not in preset or not {"common", *VARIANTS} <= invert.keys():
        empty = "{train: {}, invert: {" + ", ".join(f"{part}: {{}}" for part in ("common", *VARIANTS)) + "}}"
        raise InputError(
            f"{path}: presets.{name} lacks keys that DVC looks for: give it train and invert, with all of their parts; "
            f"one without settings of its own is `{name}: {empty}`."
        )


def expect_equal_shares(batch_size: int, num_workers: int, where: str = "") -> None:
    """See that the workers of one generator can share its batch.

    Raises:
        InputError: They cannot.
    """
    if batch_size % num_workers:
        raise InputError(
            f"{where}{num_workers} workers (ray.num_workers) cannot share a batch of {batch_size} equally: choose "
            "another of the two."
        )
