"""Policies: small files, strictly read."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from netinv.audit import MembershipPolicy, Policy, load_policy
from netinv.core import InputError


def written(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def test_what_a_file_leaves_out_is_the_default(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path, "leak: null\nmembership:\n  max_auc: 0.7\n  shadows: {models: 4}\n"))
    assert policy.leak is None
    assert policy.membership is not None
    assert policy.membership.max_auc == 0.7
    assert policy.membership.shadows is not None
    assert (policy.membership.shadows.models, policy.membership.shadows.steps) == (4, 200)
    assert policy.robustness == Policy().robustness
    assert load_policy(written(tmp_path, "# nothing\n")) == Policy()
    assert MembershipPolicy() == Policy().membership


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "membership: {max_acu: 0.7}",
            "policy.yaml.membership.max_acu is not a known key (there are: false_positive_rate, ",
        ),
        ("membership: {shadows: {models: 5}}", "membership.shadows.models: expected a multiple of 2, got 5"),
        ("leak: {significance: '0.01'}", "leak.significance"),
        ("- 1", "holds no settings"),
        ("a: [", "is not valid YAML"),
        ("a: &x [*x]", "do without aliases"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        load_policy(written(tmp_path, text))
    assert told in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not readable .*leave out --policy"):
        load_policy(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="bytes, and at most"):
        load_policy(written(tmp_path, "#" * 2**21))


def test_the_page_lists_every_default(root: Path) -> None:
    """The policy that docs/audit.md shows is the default one."""
    text = (root / "docs/audit.md").read_text()
    _, _, after = text.partition("<!-- the default policy -->\n```yaml\n")
    shown, _, _ = after.partition("```")
    assert shown.strip()
    path = root / "docs/audit.md"
    values = YAML(typ="safe", pure=True).load(shown)
    assert Policy.parse(values, where=path.name) == Policy()
    assert set(values) == set(Policy.model_fields)
    for section in ("leak", "reconstruction", "membership", "robustness", "agreement"):
        fields = type(getattr(Policy(), section)).model_fields
        assert set(values[section]) == set(fields), section
