"""Model cards say what a user of a generator must know."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from netinv.results import findings
from pipeline.tracking import candidates

if TYPE_CHECKING:
    from conftest import Exported


def test_model_card_says_what_a_user_must_know(exported: "Exported", tmp_path: Path) -> None:
    from made_up_results import results

    from netinv.classifiers import save_classifier
    from netinv.data import DatasetSpec

    save_classifier(tmp_path / "classifier", exported.classifier)
    save_classifier(tmp_path / "evaluator", exported.evaluator)
    spec = DatasetSpec(
        name="shapes",
        classes=("zero", "one", "two"),
        image_shape=(1, 12, 12),
        num_train=60,
        num_test=30,
        source="Drawn for this test",
        licence="Nobody's",
        checksums={},
    )
    found = results(("zero", "one", "two"), 0.9)
    found_candidates = candidates.find_candidates(
        "netinv-shapes-robust", "robust", exported.folder, found, tmp_path, spec, tmp_path / "absent.json"
    )
    assert [candidate.generator for candidate in found_candidates] == ["generator 0", "generator 1"]
    card = found_candidates[0].card
    accuracy = found.rows[0].measures["evaluator_accuracy"]
    assert f"| evaluator_accuracy | {accuracy} |" in card
    assert "resemble" not in card
    hub = pytest.importorskip("huggingface_hub", reason="reads the front matter")
    published = hub.ModelCard(found_candidates[0].front + card)
    assert published.text.strip() == card.strip()
    assert (published.data.library_name, published.data.datasets) == ("onnx", ["shapes"])
    assert published.data.license_name == "Nobody's"
    told = {result.metric_type: result.metric_value for result in published.data.eval_results}
    assert told["evaluator_accuracy"] == accuracy.value
    assert "frechet" not in told  # which was not measured
    said = findings(found, found.rows[0])
    assert all(f": {finding.text}\n" in card for finding in said)
    uses = ("Intended:", "Misuse:", "(N, 8)")
    for part in ("ConvClassifier", "60 training images", "Nobody's", "Drawn for this test", *uses):
        assert part in card, part
    assert found_candidates[0].standing.measured_by == found_candidates[1].standing.measured_by
    (tmp_path / "evaluator" / "weights.safetensors").write_bytes(b"another")
    assert candidates._digest(found, tmp_path, spec) != found_candidates[0].standing.measured_by


def test_an_evaluator_of_any_form_tells_what_measured(tmp_path: Path) -> None:
    """One from an exported program has no weights.safetensors."""
    from made_up_results import results

    from netinv.data import DatasetSpec

    spec = DatasetSpec.model_construct(checksums={})
    found = results(("zero", "one", "two"), 0.9)
    folder = tmp_path / "evaluator"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "network.pt2").write_bytes(b"a program")
    first = candidates._digest(found, tmp_path, spec)
    (folder / "network.pt2").write_bytes(b"another")
    assert candidates._digest(found, tmp_path, spec) != first
