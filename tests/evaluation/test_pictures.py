"""An evaluation as pictures: each is the images that it should be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from draws import library_torch_rng
from made_up import ONE, SHAPE, K, Spy, data, network
from PIL import Image

from netinv.data import LabelledImages
from netinv.evaluation import evaluate, pictures, save_evaluation
from netinv.evaluation.evaluate import Evaluation
from netinv.evaluation.rows import empty_row
from netinv.sampling import grid


def test_an_evaluation_becomes_pictures(tmp_path: Path) -> None:
    train, test = data(70, 1), data(60, 2)
    config = ONE.model_copy(update={"num_samples": 48, "epsilons": (0.1,), "sharpness": ()})
    found = evaluate([Spy(0), Spy(1)], network(7), network(1), "abc", train, test, config)
    figure = save_evaluation(tmp_path, found, train, test)
    assert (tmp_path / "results.json").read_text() == found.results.model_dump_json() + "\n"
    names = {"generator-0", "generator-1", "ensemble", "real_train", "real_test", "noise", "one_picture"}
    neighbours = {f"{name}-neighbours" for name in ("generator-0", "generator-1", "ensemble")}
    assert {path.stem for path in tmp_path.glob("*.png")} == names | neighbours | {"figure2"}

    def picture(cells: list[Any], columns: int) -> np.ndarray:
        images = np.stack([np.full(SHAPE, 255, np.uint8) if cell is None else cell for cell in cells])
        large = images.repeat(8, axis=2).repeat(8, axis=3) / np.float32(255)
        return grid([large.astype(np.float32)], len(cells), (1, 64, 64), columns)

    def read(name: str) -> np.ndarray:
        with Image.open(tmp_path / f"{name}.png") as image:
            return np.asarray(image)

    def of_class(name: str, k: int) -> list[Any]:
        images, labels = found.images[name]
        return [image.numpy() for image in images[labels == k]]

    transposed = picture([of_class(f"generator {i}", k)[i] for i in range(2) for k in range(K)], K)
    assert np.array_equal(figure, transposed)
    standing = picture([of_class(f"generator {i}", k)[i] for k in range(K) for i in range(2)], 2)
    assert np.array_equal(read("figure2"), standing)
    for name in ("noise", "ensemble"):
        cells = [(of_class(name, k) + [None] * 10)[j] for k in range(K) for j in range(10)]
        assert np.array_equal(read(name), picture(cells, 10))
    row = found.results.rows[1]
    pairs: dict[tuple[int, str], Any] = {(pair.label, pair.distance): pair for pair in row.audit.pairs}
    cells = []
    for k in range(K):
        for distance in ("pixel", "ssim", "feature"):
            pair = pairs[k, distance]
            made = found.images["generator 1"].images[pair.sample]
            cells += [made.numpy(), train.images[pair.train].numpy(), test.images[pair.test].numpy()]
    assert np.array_equal(read("generator-1-neighbours"), picture(cells, 9))
    (tmp_path / "alone").mkdir()
    for given in ((None, test), (train, None)):
        save_evaluation(tmp_path / "alone", found, *given)
        assert not list((tmp_path / "alone").glob("*neighbours*"))


def test_pictures_of_colour_and_of_large_images_and_of_many_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (3, 70, 50)
    images = torch.randint(0, 256, (50, *shape), generator=library_torch_rng(0), dtype=torch.uint8)
    labels = torch.arange(50) % 25
    row = empty_row("generator 0", "generator", 50, "made up")
    results = evaluate(
        [Spy(0)], network(7), None, "abc", None, None, ONE.model_copy(update={"num_samples": 10})
    ).results
    results = results.model_copy(
        update={
            "classes": tuple(map(str, range(25))),
            "image_shape": shape,
            "rows": (row, row.model_copy(update={"name": "lost"})),
        }
    )
    found = Evaluation(
        results, {"generator 0": LabelledImages(images, labels), "lost": LabelledImages(images[:0], labels[:0])}
    )
    figure = save_evaluation(tmp_path, found, None, None)
    assert figure.shape == (2 * 71 - 1, 20 * 51 - 1, 3)  # 20 classes at most
    assert np.array_equal(figure[:70, :50], images[0].permute(1, 2, 0))
    assert (figure[71:] == 255).all()  # nothing was drawn there
    assert np.array_equal(figure[:70, 51:101], images[1].permute(1, 2, 0))
    with Image.open(tmp_path / "generator-0.png") as image:
        assert image.size == (10 * 51 - 1, 20 * 71 - 1)
    monkeypatch.setattr(pictures, "LARGEST", 35)
    (tmp_path / "small").mkdir()
    figure = save_evaluation(tmp_path / "small", found, None, None)
    assert figure.shape == (2 * 36 - 1, 20 * 26 - 1, 3)
    means = images[1].double().view(3, 35, 2, 25, 2).mean(dim=(2, 4))
    assert np.abs(figure[:35, 26:51] - means.permute(1, 2, 0).numpy()).max() <= 0.5
