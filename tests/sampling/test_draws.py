"""Latents and conditions are those of their definition."""

import re
from typing import Any

import numpy as np
import pytest
from draws import library_numpy_rng

from netinv.sampling import draw, softmax
from netinv.sampling.draws import draw_batches


def test_a_softmax_is_over_the_last_axis_and_bears_large_numbers() -> None:
    logits = library_numpy_rng(0).standard_normal((2, 3, 4))
    expected = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(softmax(logits), expected, rtol=1e-6)
    assert softmax(np.array([1000.0, 1000.0, -1000.0])).tolist() == [0.5, 0.5, 0.0]
    assert softmax(logits).dtype == np.float32


def test_draws_are_those_of_their_definition() -> None:
    latent, condition = draw(6, latent_dim=4, num_classes=3, seed=5, sharpness=(0.5, 8.0))
    normal_rng, uniform_rng = library_numpy_rng(5).spawn(2)
    normal = normal_rng.standard_normal((6, 7), dtype=np.float32)
    logits = 0.5 * 16.0 ** uniform_rng.random((6, 1)) * normal[:, 4:]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.array_equal(latent, normal[:, :4])
    np.testing.assert_allclose(condition, expected, rtol=1e-6)
    assert condition.dtype == latent.dtype == np.float32
    assert latent.flags.owndata  # or all normal numbers are kept alive
    plain = draw(6, latent_dim=4, num_classes=3, seed=5, sharpness=(1.0, 1.0))[1]
    np.testing.assert_allclose(
        plain, np.exp(normal[:, 4:]) / np.exp(normal[:, 4:]).sum(axis=1, keepdims=True), rtol=1e-5
    )


def test_a_wanted_label_swaps_places_with_the_largest() -> None:
    free = draw(3, latent_dim=1, num_classes=4, seed=0, sharpness=(1.0, 1.0))[1]
    wanted = draw(3, latent_dim=1, num_classes=4, seed=0, sharpness=(1.0, 1.0), labels=[0, 3, 1])[1]
    for before, after, label in zip(free, wanted, [0, 3, 1], strict=True):
        expected = before.copy()
        expected[[before.argmax(), label]] = expected[[label, before.argmax()]]
        assert np.array_equal(after, expected)


def test_batches_are_of_64_unless_told_and_take_their_own_labels() -> None:
    arguments: dict[str, Any] = {"latent_dim": 1, "num_classes": 2, "seed": 0, "sharpness": (1.0, 1.0)}
    assert [len(latent) for latent, _ in draw_batches(130, **arguments)] == [64, 64, 2]
    plain = [condition for _, condition in draw_batches(3, **arguments)]
    assert np.array_equal(plain[0], draw(3, **arguments)[1])
    labels = [0, 1, 1, 0, 1]
    batches = [condition.argmax(axis=1) for _, condition in draw_batches(5, **arguments, labels=labels, batch_size=2)]
    assert np.concatenate(batches).tolist() == labels
    assert [len(latent) for latent, _ in draw_batches(0, **arguments, batch_size=1)] == [0]
    assert [condition.shape for _, condition in draw_batches(0, **arguments, labels=[])] == [(0, 2)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num": -1}, "Expected num >= 0 and batch_size >= 1, got -1 and 1"),
        ({"num": 2.0}, "The number of images is 2.0: give a whole number."),
        ({"seed": 1.5}, "The seed is 1.5: give a whole number."),
        ({"seed": None}, "The seed is None: give a whole number."),
        ({"labels": np.array([0.0, 1.9])}, "A label is 0.0: give a whole number."),
        *(
            (
                {"sharpness": s},
                f"The sharpness is {s}: give a number above 0 to 1,000, or a range of two, the lower first.",
            )
            for s in ((0.0, 1.0), (2.0, 1.0), (1.0, 1e308), (5e-324, 1000.0), (1, 2, 3), "3", True, np.nan)
        ),
        ({"labels": [0, 3]}, "Expected 2 labels from 0 to 2, got 2: [0, 3]"),
        ({"labels": [0, -1]}, "Expected 2 labels from 0 to 2, got 2: [0, -1]"),
        ({"labels": [0]}, "Expected 2 labels from 0 to 2, got 1: [0]"),
    ],
)
def test_impossible_draws_say_why(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        draw(**{"num": 2, "latent_dim": 1, "num_classes": 3, "seed": 0, "sharpness": (1.0, 1.0), **wrong})
    with pytest.raises(ValueError, match="got 2 and 0"):
        next(draw_batches(2, latent_dim=1, num_classes=3, seed=0, sharpness=(1.0, 1.0), batch_size=0))
