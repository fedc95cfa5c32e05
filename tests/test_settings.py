"""No setting without a test that its value reaches what it is for."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netinv.core import Config
from pipeline.params import DatasetParams, Params

WIRING = {
    "AgreementPolicy": (
        "audit/test_policy_wiring.py",
        {
            "min_on_test": "test_both_limits_are_those_of_the_agreement",
            "min_on_samples": "test_both_limits_are_those_of_the_agreement",
            "min_images": "test_images_are_needed_and_bounded",
            "images": "test_images_are_needed_and_bounded",
        },
    ),
    "LeakPolicy": (
        "audit/test_policy_wiring.py",
        {
            "significance": "test_significance_is_shared_by_all_tests",
            "max_copies": "test_max_copies_is_the_limit_of_their_surplus",
            "min_samples": "test_min_samples_are_needed_for_a_pass",
            "min_pool": "test_min_pool_is_needed_for_a_pass",
            "pool": "test_pool_bounds_the_real_images",
        },
    ),
    "MembershipPolicy": (
        "audit/test_policy_wiring.py",
        {
            "false_positive_rate": "test_false_positive_rate_is_where_it_decides",
            "max_true_positive_rate": "test_false_positive_rate_is_where_it_decides",
            "max_auc": "test_max_auc_is_the_limit_of_both",
            "min_images": "test_min_images_are_needed_for_a_pass",
            "images": "test_images_bound_each_side",
            "shadows": "test_shadows_may_be_left_out",
        },
    ),
    "Policy": (
        "audit/test_policy_wiring.py",
        {
            "seed": "test_seed_fixes_every_choice",
            "samples": "test_samples_bound_each_set",
        }
        | dict.fromkeys(
            ("strangers", "leak", "reconstruction", "membership", "robustness", "agreement"),
            "test_a_section_that_is_null_is_left_out",
        ),
    ),
    "ReconstructionPolicy": (
        "audit/test_policy_wiring.py",
        {
            "false_alarms": "test_false_alarms_are_those_of_the_list",
            "min_samples": "test_samples_are_needed_to_recognise_nothing",
        },
    ),
    "RobustnessPolicy": (
        "audit/test_policy_wiring.py",
        {
            "epsilon": "test_the_attack_is_that_of_the_policy",
            "attack_steps": "test_the_attack_is_that_of_the_policy",
            "min_accuracy": "test_min_accuracy_is_its_limit",
            "min_images": "test_test_images_are_needed_for_a_pass",
            "images": "test_the_attack_is_that_of_the_policy",
        },
    ),
    "StrangersPolicy": (
        "audit/test_policy_wiring.py",
        {"max_shared": "test_test_images_that_are_training_images_are_counted"},
    ),
    "ShadowConfig": (
        "audit/test_policy_wiring.py",
        {
            "models": "test_models_are_as_many",
            "architecture": "test_architecture_is_its_own_or_the_stand_in",
        }
        | dict.fromkeys(
            ("steps", "batch_size", "lr", "weight_decay"),
            "test_steps_and_batches_and_rates_are_those_of_the_training",
        ),
    ),
    "AdapterConfig": (
        "classifiers/test_adapter_wiring.py",
        {
            "mean": "test_mean_and_std_normalise_the_images",
            "std": "test_mean_and_std_normalise_the_images",
            "input_shape": "test_input_shape_is_what_the_network_gets",
            "channel_order": "test_channel_order_turns_the_channels_round",
            "output": "test_output_is_what_the_scores_are_taken_for",
            "output_entry": "test_output_entry_names_the_scores",
            "feature_layer": "test_feature_layer_names_whose_input_the_features_are",
        },
    ),
    "ClassifierSource": (
        "classifiers/test_adapter_wiring.py",
        dict.fromkeys(
            ("model", "arguments", "weights", "weights_prefix", "image_shape", "num_classes", "adapter"),
            "test_a_source_names_all_that_makes_a_classifier",
        )
        | {"factory": "test_factory_is_what_a_stored_network_may_call"},
    ),
    "ClassifierTrainingConfig": (
        "classifiers/test_classifier_wiring.py",
        {
            "epochs": "test_epochs_are_rounds_through_all_images",
            "batch_size": "test_batch_size_is_that_of_the_batches",
            "lr": "test_lr_is_the_peak_of_one_cycle",
            "weight_decay": "test_weight_decay_shrinks_what_has_no_gradient",
            "shift": "test_shift_moves_the_images",
            "flip": "test_flip_mirrors_half_of_the_images",
            "distortion": "test_distortion_stretches_the_images",
            "mixup": "test_mixup_blends_the_images_of_a_batch",
            "epsilon": "test_epsilon_is_how_far_a_pixel_moves",
            "precision": "test_precision_is_what_the_layers_compute_in",
        },
    ),
    "ConvClassifierConfig": (
        "classifiers/test_classifier_wiring.py",
        {
            "kind": "test_kind_chooses_the_architecture",
            "channels": "test_channels_are_those_of_the_stages",
            "convs_per_stage": "test_convs_per_stage_are_as_many",
            "feature_dim": "test_feature_dim_is_that_of_the_features",
            "batch_norm": "test_batch_norm_follows_each_convolution",
            "dropout": "test_dropout_follows_each_stage_and_the_features",
        },
    ),
    "DistillationConfig": (
        "evaluation/test_distillation_wiring.py",
        {
            "images": "test_images_and_their_sharpness_are_those_of_the_distilled_student",
            "sharpness": "test_images_and_their_sharpness_are_those_of_the_distilled_student",
            "steps": "test_steps_are_taken_on_batches_of_batch_size",
            "batch_size": "test_steps_are_taken_on_batches_of_batch_size",
            "lr": "test_lr_is_the_peak_of_one_cycle",
            "temperature": "test_temperature_softens_both_and_scales_the_gradient",
            "shift": "test_shift_moves_the_images",
            "distortion": "test_distortion_stretches_the_images",
            "color_jitter": "test_color_jitter_is_the_share_of_images_with_another_contrast",
            "mix": "test_mix_blends_two_images",
            "noise": "test_noise_is_the_largest_deviation",
        },
    ),
    "EvaluationConfig": (
        "evaluation/test_evaluation_wiring.py",
        {
            "num_samples": "test_num_samples_is_the_length_of_every_row",
            "seed": "test_seed_fixes_draws_intervals_and_students",
            "sharpness": "test_sharpness_is_what_the_bins_are_drawn_at",
            "sharpness_samples": "test_sharpness_samples_are_drawn_at_each",
            "vendi_samples": "test_vendi_samples_are_those_of_each_class",
            "epsilons": "test_epsilons_and_attack_steps_and_robust_samples_are_those_of_the_curve",
            "robust_epsilon": "test_robust_epsilon_names_the_headline",
            "attack_steps": "test_epsilons_and_attack_steps_and_robust_samples_are_those_of_the_curve",
            "robust_samples": "test_epsilons_and_attack_steps_and_robust_samples_are_those_of_the_curve",
            "privacy_samples": "test_privacy_samples_are_audited",
            "privacy_pool": "test_privacy_pool_is_searched",
            "resamples": "test_resamples_stand_behind_an_interval",
            "student": "test_student_is_how_students_are_trained",
            "distillation": "test_distillation_is_how_another_is_taught",
            "student_architecture": "test_student_architecture_is_that_of_both",
        },
    ),
    "ExportConfig": (
        "export/test_export_wiring.py",
        {
            "forms": "test_forms_are_those_that_are_written",
            "max_accuracy_loss": "test_max_accuracy_loss_and_num_samples_and_the_worst_of_all_generators",
            "num_samples": "test_max_accuracy_loss_and_num_samples_and_the_worst_of_all_generators",
        },
    ),
    "DictionaryConfig": (
        "interpretation/test_interpretation_wiring.py",
        {
            "units": "test_units_and_active_are_those_of_the_dictionary",
            "active": "test_units_and_active_are_those_of_the_dictionary",
            "steps": "test_steps_and_batch_size_are_those_of_the_training",
            "batch_size": "test_steps_and_batch_size_are_those_of_the_training",
            "lr": "test_lr_is_that_of_the_first_steps_and_falls_to_0_at_the_end",
            "auxiliary": "test_auxiliary_is_the_weight_of_the_second_loss",
            "seed": "test_seed_of_a_dictionary_is_of_its_first_directions_and_the_order",
        },
    ),
    "InterpretationConfig": (
        "interpretation/test_interpretation_wiring.py",
        {
            "layer": "test_layer_is_whose_output_is_interpreted",
            "images": "test_images_are_trained_on_and_measured_are_measured_on",
            "measured": "test_images_are_trained_on_and_measured_are_measured_on",
            "dictionary": "test_dictionary_is_that_of_all_and_sweep_adds_to_it",
            "sweep": "test_dictionary_is_that_of_all_and_sweep_adds_to_it",
            "concepts": "test_concepts_and_examples_are_shown",
            "examples": "test_concepts_and_examples_are_shown",
            "ascent_steps": "test_ascent_steps_are_climbed",
            "resamples": "test_resamples_stand_behind_the_mean_of_units",
            "seed": "test_seed_fixes_every_draw",
        },
    ),
    "FetchConfig": (
        "data/test_source_wiring.py",
        {
            "mirror": "test_mirror_is_read_in_place_of_a_download",
            "folders": "test_folders_add_data_sets_and_replace_others",
        },
    ),
    "FolderConfig": (
        "data/test_source_wiring.py",
        {
            "path": "test_path_is_where_the_images_are",
            "image_shape": "test_image_shape_is_that_of_the_images",
            "source": "test_source_and_licence_are_told",
            "licence": "test_source_and_licence_are_told",
            "sha256": "test_sha256_is_what_an_archive_must_have",
        },
    ),
    "GeneratorConfig": (
        "generators/test_generator_wiring.py",
        {
            "conditioning": "test_conditioning_is_how_the_label_gets_in",
            "latent_dim": "test_latent_dim_is_the_length_of_the_latent",
            "hidden_dim": "test_hidden_dim_is_the_length_of_the_mapped_condition",
            "width": "test_width_doubles_at_each_halving",
            "max_width": "test_max_width_bounds_the_doubling",
            "upsampling": "test_upsampling_is_how_an_image_doubles",
            "dropout": "test_dropout_is_that_of_each_up_convolution",
            "softening": "test_softening_is_the_number_of_blurs",
            **dict.fromkeys(("toning", "negatives"), "test_images_have_the_tone_that_their_latents_say"),
            "bending": "test_bending_is_how_far_the_first_latents_bend_an_image",
        },
    ),
    "AblationParams": (
        "pipeline/test_params_wiring.py",
        dict.fromkeys(("num_seeds", "steps"), "test_conditions_are_run_from_as_many_seeds_for_so_many_steps")
        | {
            "evaluate": "test_the_ablation_is_measured_by_its_own_evaluation_on_the_best_device",
            "conditions": "test_conditions_are_run_from_as_many_seeds_for_so_many_steps",
        },
    ),
    "AuditParams": (
        "pipeline/test_audit_stage.py",
        {
            "datasets": "test_datasets_are_those_that_dvc_audits",
            "stop_at": "test_the_record_is_written_whatever_the_verdict_does",
            "policy": "test_the_record_is_written_whatever_the_verdict_does",
        },
    ),
    "Choices": ("pipeline/test_params_wiring.py", {"choices": "test_parts_of_a_space_are_drawn_as_they_say"}),
    "ConditionParams": (
        "pipeline/test_params_wiring.py",
        dict.fromkeys(
            ("variant", "generator", "inversion"), "test_conditions_are_run_from_as_many_seeds_for_so_many_steps"
        ),
    ),
    "GeneratorParams": (
        "pipeline/test_params_wiring.py",
        {
            "num_generators": "test_generators_are_as_many_and_their_seeds_count_up",
            "seed": "test_generators_are_as_many_and_their_seeds_count_up",
            "attempts": "test_attempts_are_those_of_each_generator",
            "generator": "test_generators_are_as_many_and_their_seeds_count_up",
            "robust_generator": "test_generators_are_as_many_and_their_seeds_count_up",
        },
    ),
    "ModelParams": (
        "pipeline/test_params_wiring.py",
        dict.fromkeys(
            ("seed", "architecture", "training"), "test_a_model_has_its_seed_its_architecture_and_its_training"
        )
        | {"source": "test_a_source_is_taken_in_place_of_a_training"},
    ),
    "Range": (
        "pipeline/test_params_wiring.py",
        dict.fromkeys(("low", "high", "log"), "test_parts_of_a_space_are_drawn_as_they_say"),
    ),
    "RayParams": (
        "pipeline/test_params_wiring.py",
        dict.fromkeys(("num_workers", "num_cpus", "num_gpus"), "test_workers_and_what_each_has_are_what_a_job_asks_for")
        | {
            "generators_per_worker": "test_generators_share_a_worker_and_keep_their_states_as_often",
            "checkpoint_every": "test_generators_share_a_worker_and_keep_their_states_as_often",
            "storage": "test_states_are_kept_in_the_storage",
        },
    ),
    "RobustGenerator": (
        "pipeline/test_params.py",
        dict.fromkeys(
            ("bending", "softening", "toning", "negatives"), "test_robust_generators_have_something_of_their_own"
        ),
    ),
    "TuneParams": (
        "pipeline/test_params_wiring.py",
        dict.fromkeys(("num_trials", "seed"), "test_a_search_has_its_trials_its_seed_and_its_space")
        | dict.fromkeys(("samples_per_class", "epsilon", "attack_steps"), "test_a_trial_is_measured_as_the_search_says")
        | dict.fromkeys(("standard", "robust"), "test_a_search_has_its_trials_its_seed_and_its_space"),
    ),
    "ResidualClassifierConfig": (
        "classifiers/test_classifier_wiring.py",
        {
            "kind": "test_kind_chooses_the_architecture",
            "channels": "test_residual_channels_are_those_of_the_stages",
        },
    ),
}
"""For each configuration the file of its tests, and for each of its fields the one that fails where it is ignored."""
ELSEWHERE = {"InversionConfig"}
"""Its fields are followed over a whole run in ``tests/inversion/test_wiring.py``."""
SECTIONS = {"DatasetParams", "InvertParams", "Params", "TrainParams"}
"""Parts of ``params.yaml`` that hold others, each of which is above."""
RECORDS = {
    "AccuracyBin",
    "Audit",
    "AuditRecord",
    "CalibrationBin",
    "Candidate",
    "Check",
    "CheckReport",
    "Comparison",
    "DatasetSpec",
    "DictionaryRow",
    "Estimate",
    "Files",
    "Finding",
    "InterpretationResults",
    "Lineage",
    "Match",
    "NotMeasured",
    "Number",
    "Pair",
    "Recognised",
    "Record",
    "Results",
    "RobustPoint",
    "Row",
    "Standing",
    "Unit",
    "_Record",
    "_Settings",
}
"""What is found out and written down, where nothing is set."""


def settings(kind: type[Config] = Config) -> Iterator[type[Config]]:
    for own in kind.__subclasses__():
        if own.__module__.startswith(("netinv.", "pipeline.")):  # and not a test's
            yield own
        yield from settings(own)


@pytest.fixture(scope="module")
def configurations(root: Path) -> dict[str, type[Config]]:
    """All of the library and of the pipeline, by their names."""
    own = [path for path in (root / "pipeline").rglob("*.py") if "(Config)" in path.read_text()]
    for path in [*sorted((root / "netinv").rglob("*.py")), *own]:
        importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))
    return {config.__name__: config for config in settings()}


def test_every_configuration_is_in_the_table(configurations: dict[str, type[Config]]) -> None:
    assert set(configurations) == set(WIRING) | ELSEWHERE | SECTIONS | RECORDS


@pytest.mark.parametrize("name", WIRING)
def test_every_setting_has_a_test_that_it_is_heeded(
    root: Path, configurations: dict[str, type[Config]], name: str
) -> None:
    file, tests = WIRING[name]
    assert list(tests) == list(configurations[name].model_fields)
    tree = ast.parse((root / "tests" / file).read_text())
    written = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(tests.values()) <= written


# ---- ranges


def _numbers(schema: dict[str, Any], where: str, whole: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every number that a JSON schema lets in, by its place."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rsplit("/", 1)[1]] | {"$ref": None}
    if schema.get("type") in ("integer", "number") and "const" not in schema and "enum" not in schema:
        yield where, schema
    for key, part in schema.get("properties", {}).items():
        yield from _numbers(part, f"{where}.{key}" if where else key, whole)
    for part in (*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("prefixItems", [])):
        yield from _numbers(part, where, whole)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _numbers(schema[key], where, whole)


def _told(schema: dict[str, Any]) -> str:
    low = f"above {schema['exclusiveMinimum']:g}" if "exclusiveMinimum" in schema else f"{schema['minimum']:,}"
    high = schema.get("maximum")
    end = f"{high:,}" if high is not None else f"below {schema['exclusiveMaximum']:,}"
    return f"{low} to {end}"


def test_every_number_has_a_range_and_the_page_of_settings_names_it(root: Path) -> None:
    page = (root / "docs" / "settings.md").read_text()
    rows = []
    for config in (DatasetParams, Params):
        schema = config.model_json_schema()
        for where, part in _numbers(schema, "", schema):
            assert {"minimum", "exclusiveMinimum"} & set(part), where
            assert {"maximum", "exclusiveMaximum"} & set(part), where
            row = f"| `{where.replace('invert.standard', 'invert.VARIANT')}` | {_told(part)} |"
            if not where.startswith(("invert.robust", "train.evaluator", "ablation.evaluate")):
                rows.append(row)
    missing = [row for row in dict.fromkeys(rows) if row not in page]
    assert not missing, "\n".join(missing)
    assert page.count("| `") == len(dict.fromkeys(rows))


def test_no_configuration_of_the_library_takes_a_number_without_end(configurations: dict[str, type[Config]]) -> None:
    for name in [*WIRING, *ELSEWHERE]:
        schema = configurations[name].model_json_schema()
        for where, part in _numbers(schema, name, schema):
            assert {"minimum", "exclusiveMinimum"} & set(part), where
            assert {"maximum", "exclusiveMaximum"} & set(part), where
