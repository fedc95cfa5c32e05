"""No secret in what is printed or stored."""

import pytest

from netinv.core import redacted

ADDRESSES = [
    "ftp://ada:SECRET@host/x",
    "http://ada:SECRET@host:5000",
    "http://ada:SEC/SECRET/RET@host:5000",
    "http://ada:1/SECRET@host:5000",
    "http://ada:SEC SECRET RET@host:5000",
    "http://ada:SECRET@SECRET@host:5000",
    "https://SECRET@host/path",
    "https://:SECRET@host/path",
    "postgresql+psycopg2://ada:SECRET@host/mlflow?sslpassword=SECRET",
    "redis://default:SECRET@[::1]:6379",
    "ada:SECRET@host:5000",
    "ada:SEC/SECRET@host:5000/path",
    "ada:SECRET@SECRET@host:5000",
    "http://host:8265/#token=SECRET",
    "http://host:8265/path?token=SECRET&x=1",
    "http://host/?X-Amz-Signature=SECRET#frag",
    "host:8265/#token=SECRET",
    "host:8265?access_token=SECRET",
    "host:8265/?x=1&api_key=SECRET",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "text", ["{}", "The server {} is away.", "cannot use '{}' (refused)", '{{"uri": "{}"}}', "a\n{}\nb"]
)
def test_no_secret_is_left(text: str, address: str) -> None:
    told = redacted(text.format(address))
    assert "SECRET" not in told
    assert "ada" not in told
    assert "host" in told or "[::1]" in told


@pytest.mark.parametrize(
    "text",
    [
        "{'password': 'SECRET', 'depth': 3}",
        '{"token": "SECRET", "depth": 3}',
        "Authorization: Bearer SECRET-SECRET",
        "curl -H 'Authorization: Basic SECRET=='",
        "the header Bearer SECRET.SECRET was refused",
    ],
)
def test_no_secret_of_a_mapping_or_a_header_is_left(text: str) -> None:
    assert "SECRET" not in redacted(text)
    assert ("depth" in redacted(text)) == ("depth" in text)


@pytest.mark.parametrize("address", ["ada:SEC SECRET RET@host:5000", "ada:SEC ?SECRET#@host"])
def test_an_address_alone_may_have_anything_in_its_password(address: str) -> None:
    assert "SECRET" not in redacted(address)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000",
        "http://host:5000/x failed: mail ada@example.org",
        "s3://bucket/path and sqlite:////data/me@work/mlflow.db",
        "dvc repro -f -s train@my-images-classifier",
        "ray.num_workers: expected a number, got 'x'; lr: 3",
        "3:0.6,8:0.4",
        'my_models:classifier with {"depth": 3}',
        "tokens of the mean over tokens = pixels",
        "epsilon=0.1 is above 1",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text
