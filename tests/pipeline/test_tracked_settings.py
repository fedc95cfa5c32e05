"""Settings as MLflow takes them: names, lengths, and nothing secret."""

import json
from pathlib import Path

import pytest

from netinv.core import redacted
from pipeline import tracking
from pipeline.tracking import journal


def test_parameters_have_names_that_the_store_takes_and_no_secrets() -> None:
    from mlflow.utils.validation import _validate_param_name

    settings = {
        "conditions": {"no KL (paper)": 1, "KL+CE": 2, "été": 3, "robust, 50%": 4, "KL-CE": 5, "KL*CE": 6},
        "digits/robust": {"epsilon": 0.1},
        "sha256": {"sub/pets (1).zip": "ab"},
        "../x": 1,
        "y" * 300: 2,
        "source": {
            "arguments": {
                "token": "SECRET",
                "api_key": "SECRET",
                "keys": ["SECRET"],
                "accessToken": {"a": "SECRET"},
                "num_tokens": 64,
                "depth": "deep",
                "keyword": "shown",
                "ssh_key": "SECRET",
            }
        },
    }
    flat = tracking.flatten(settings)
    assert len(flat) == 18
    for name in flat:
        _validate_param_name(name)
    assert flat["conditions.no KL _paper_"] == "1"
    assert flat["conditions.été"] == "3"
    assert flat["digits/robust.epsilon"] == "0.1"
    assert sorted(value for name, value in flat.items() if name.startswith("conditions.KL")) == ["2", "5", "6"]
    told = {name.rpartition(".")[2]: value for name, value in flat.items() if name.startswith("source")}
    hidden = dict.fromkeys(("token", "api_key", "keys", "accessToken", "ssh_key"), "***")
    assert told == {**hidden, "num_tokens": "64", "depth": "deep", "keyword": "shown"}


def test_what_is_flat_already_is_taken_as_it_is(tmp_path: Path) -> None:
    """A number of tokens is no secret, and is none either where an earlier stage wrote it down as a text."""
    once = tracking.flatten({"arguments": {"num_tokens": 49, "token": "SECRET"}})
    assert once == {"arguments.num_tokens": "49", "arguments.token": "***"}
    tracking.Run(tmp_path, "train digits", {}, {"seed": 1}, flat=once)
    record = json.loads((tmp_path / "records.jsonl").read_text().splitlines()[0])
    assert record["params"] == {**once, "seed": "1"}


def test_long_parameter_is_cut_and_says_so() -> None:
    (value,) = tracking.flatten({"long": "x" * 7000}).values()
    assert len(value) == journal.MAX_PARAM_LENGTH
    assert value.endswith("x... (7000 characters)")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql://ada:pa%40ss@db/mlflow?sslpassword=x", "postgresql://db/mlflow"),
        ("failed: https://ada:p@ss@host:1/x?token=1 (refused)", "failed: https://host:1/x (refused)"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("sqlite:////data/me@work/mlflow.db", "sqlite:////data/me@work/mlflow.db"),
    ],
)
def test_redacted(uri: str, expected: str) -> None:
    assert redacted(uri) == expected
