"""What stages leave of their runs for those after them."""

from pathlib import Path

import pytest

from netinv.core import InputError
from pipeline.tracking import lineage_path, read_lineage


def test_a_stage_that_has_not_run_has_no_run(tmp_path: Path) -> None:
    assert read_lineage(tmp_path / "absent.json").run_id is None


def test_each_stage_leaves_it_by_data_set_and_variant() -> None:
    assert lineage_path("fetch", "digits") == Path("runs/fetch/digits.json")
    assert lineage_path("invert", "digits", "robust") == Path("runs/invert/digits-robust.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not readable JSON"),
        ("[]", "expected an object, got []"),
        ("[" * 100_000, "nested too deeply"),
        ('{"run_id": 7}', "run_id: expected a valid string"),
        ('{"run_id": "../../x"}', "run_id: "),
        ('{"children": {"generator 0": 5}}', "children.generator 0"),
        ('{"params": {"invert": {"steps": 5}}}', "params.invert.steps"),
        ('{"run": "a"}', "run is not a known key"),
        ('{"run_id": "\\ud800"}', "Invalid JSON"),
    ],
)
def test_what_is_no_lineage_is_told_with_file_and_key(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "digits.json"
    path.write_text(content)
    with pytest.raises(InputError) as raised:
        read_lineage(path)
    assert words in str(raised.value)
    assert "digits.json" in str(raised.value)
    assert str(raised.value).endswith("run its stage again.")
