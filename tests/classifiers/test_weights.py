"""Weights from files of every kind find their places in a network; what does not fit or cannot be read is refused."""

import argparse
import io
import json
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path, PureWindowsPath
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import torch
from draws import seed_torch
from foreign_networks import Bomb, ConvNet, NamedOutput, Residual, same
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn

from netinv.classifiers.weights import load_weights, read_tensors
from netinv.core import InputError

SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    seed_torch(3)
    return ConvNet()


def wrapped(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def within(wrapper: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as they are where the convolutions alone are wrapped."""
    return {re.sub("^convolutions", f"convolutions.{wrapper}", name): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "layout",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.5},
        lambda state: (state, 3),
        lambda state: {"state_dict": wrapped("module.", state)},
        lambda state: {
            "model_state": wrapped("_orig_mod.", state),
            "options": argparse.Namespace(lr=0.1),
            "at": datetime.now(),
        },
        lambda state: {"state_dict": wrapped("model.net.", state) | {"loss.weight": torch.ones(3)}},
        lambda state: {"a": {"b": {"c": state}}, "accuracy": np.float64(0.9), "seen": np.int64(3)},
        lambda state: {"model": state, "losses": np.ones(3), "rng": np.random.RandomState(0).get_state()},
        lambda state: {"model": state, "epoch": np.int32(1), "name": np.str_("a"), "fields": np.zeros(2, "u1,O")},
        lambda state: {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")},
        lambda state: {"state_dict": state, "hyper_parameters": {"data": Path("x/y"), "old": PureWindowsPath("z")}},
        lambda state: {"model": state, "at": [datetime.now(UTC), date(2020, 1, 1), timedelta(1)]},
        lambda state: {"model": state, "of": [UUID(int=1), Decimal(1)]},
        lambda state: wrapped("module._orig_mod.", state) | {"n_averaged": torch.tensor(3)},
        lambda state: {"ema": None, "module": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        lambda state: wrapped("_fsdp_wrapped_module.", within("_fsdp_wrapped_module", state)),
        lambda state: {"state_dict": within("_checkpoint_wrapped_module", state)},
        lambda state: within("_orig_mod", state),
        lambda state: {"arch": "vgg", "state_dict": within("module", state)},
    ],
    ids=[
        *(
            "plain",
            "nested",
            "tuple",
            "data parallel",
            "compiled",
            "lightning",
            "numpy",
            "arrays",
            "other numbers",
            "no counters",
            "paths",
            "dates",
            "names",
            "averaged",
        ),
        *("deepspeed", "sharded layers", "recomputed layers", "compiled layers", "data parallel layers"),
    ],
)
def test_finds_the_weights_in_a_checkpoint(layout: Any, network: nn.Module, tmp_path: Path) -> None:
    torch.save(layout(network.state_dict()), tmp_path / "weights.pt")
    fresh = ConvNet()
    load_weights(fresh, tmp_path / "weights.pt")
    assert same(network, fresh)


@pytest.mark.parametrize("prefix", [None, "model.module"])
def test_older_names_that_the_modules_themselves_know(prefix: str | None, tmp_path: Path) -> None:
    def normed(norm: Any) -> nn.Module:
        return nn.Sequential(norm(nn.Linear(4, 3)))

    with pytest.warns(FutureWarning, match="weight_norm"):
        old = normed(nn.utils.weight_norm)
    new = normed(nn.utils.parametrizations.weight_norm)
    torch.save({"model": wrapped("module.", old.state_dict()), "epoch": 3}, tmp_path / "weights.pt")
    load_weights(new, tmp_path / "weights.pt", prefix)
    torch.testing.assert_close(new[0].weight, old[0].weight)
    assert torch.equal(new[0].bias, old[0].bias)
    with pytest.raises(InputError, match="it lacks"):
        load_weights(nn.Sequential(new[0], nn.Linear(3, 2)), tmp_path / "weights.pt", prefix)


def test_safetensors(network: nn.Module, tmp_path: Path) -> None:
    save_file(wrapped("module.", network.state_dict()), tmp_path / "weights.safetensors")
    fresh = ConvNet()
    load_weights(fresh, tmp_path / "weights.safetensors")
    assert same(network, fresh)


def test_what_a_file_is_its_content_tells(network: nn.Module, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "6f1ed0")
    torch.save(network.state_dict(), tmp_path / "a0c3.safetensors")
    torch.save(network.state_dict(), tmp_path / "b1d4.tar", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        fresh = ConvNet()
        load_weights(fresh, path)
        assert same(network, fresh), path


@pytest.mark.parametrize("save", [save_file, torch.save])
def test_an_index_of_shards_that_lie_beside_it(save: Any, network: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    place = {name: f"model-0000{i % 3}-of-00003.bin" for i, name in enumerate(state)}
    for file in {*place.values()}:
        save({name: tensor for name, tensor in state.items() if place[name] == file}, tmp_path / file)
    index = tmp_path / "model.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": place}))
    fresh = ConvNet()
    load_weights(fresh, index)
    assert same(network, fresh)
    (tmp_path / "model-00001-of-00003.bin").unlink()
    with pytest.raises(InputError, match=r"model-00001-of-00003\.bin is not a readable file of weights .*No such file"):
        load_weights(fresh, index)


@pytest.mark.parametrize("place", ["../weights.bin", "/weights.bin", "", "..", "index.json", "\0"])
def test_an_index_reaches_nothing_else(place: str, network: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    torch.save(network.state_dict(), tmp_path / "weights.bin")
    index = tmp_path / "here/index.json"
    for content in ({"weight_map": {"out.weight": place}}, {"weight_map": {}}, {"hidden_size": 3}, []):
        index.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"no index of files of weights that lie|not a readable file of"):
            read_tensors(index)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight


def test_a_weight_that_is_tied_to_another_may_be_missing(tmp_path: Path) -> None:
    network, fresh = Tied(), Tied()
    save_model(network, str(tmp_path / "weights.safetensors"))
    assert len(load_file(tmp_path / "weights.safetensors")) == 3
    load_weights(fresh, tmp_path / "weights.safetensors")
    assert same(network, fresh)
    save_file({"a.bias": torch.ones(4), "b.bias": torch.ones(4)}, tmp_path / "biases.safetensors")
    with pytest.raises(InputError, match=r"it lacks a\.weight, b\.weight"):
        load_weights(fresh, tmp_path / "biases.safetensors")


def test_a_network_with_wrapped_layers_takes_the_weights_of_a_plain_one(network: nn.Module, tmp_path: Path) -> None:
    torch.save({"ema": {"module": network.state_dict()}}, tmp_path / "weights.pt")
    for prefix in (None, "ema", "ema.module"):
        fresh: Any = ConvNet()
        fresh.convolutions = nn.DataParallel(fresh.convolutions)
        load_weights(fresh, tmp_path / "weights.pt", prefix)
        assert torch.equal(fresh.convolutions.module[0].weight, network.get_parameter("convolutions.0.weight"))


class Teacher(nn.Linear):
    """Two weights that are told apart by the name of a wrapper alone."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.module = nn.Linear(4, 4)


@pytest.mark.parametrize("prefix", ["", "state_dict."])
def test_names_that_tell_weights_apart_are_kept(prefix: str, tmp_path: Path) -> None:
    network, fresh = Teacher(), Teacher()
    torch.save(wrapped(prefix, network.state_dict()), tmp_path / "weights.pt")
    load_weights(fresh, tmp_path / "weights.pt")
    assert same(network, fresh)


def test_a_whole_training_checkpoint_with_its_optimizer(tmp_path: Path) -> None:
    network = ConvNet()
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(4, *SHAPE)).sum().backward()
    optimizer.step()
    torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}, tmp_path / "last.pth")
    fresh = ConvNet()
    load_weights(fresh, tmp_path / "last.pth")
    assert same(network, fresh)


def test_of_several_weights_one_must_be_named(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": ConvNet().state_dict(), "ema": {"module": network.state_dict()}}, path)
    fresh = ConvNet()
    with pytest.raises(InputError, match=r"fit in 2 places: name one as weights_prefix: model, ema\.module"):
        load_weights(fresh, path)
    load_weights(fresh, path, "ema.module")
    assert same(network, fresh)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Residual, "it lacks convolutions.0.weight.* and it has stem.weight"),
        (NamedOutput, "has projection.weight, projection.bias, which the network has not"),
        (lambda: ConvNet(num_classes=7), r"out.weight is \(7, 24\), not \(10, 24\)"),
        (lambda: nn.PReLU(), "it has weight where the network has convolutions.0.weight"),
    ],
)
def test_says_why_weights_do_not_fit(other: Any, message: str, tmp_path: Path) -> None:
    torch.save(other().state_dict(), tmp_path / "weights.pt")
    fresh = ConvNet()
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    with pytest.raises(InputError, match=message):
        load_weights(fresh, tmp_path / "weights.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda tensor: tensor.to("meta"), "without values .saved on the device meta."),
        (lambda tensor: tensor.to_sparse(), "sparse"),
        (lambda tensor: tensor.mul(100).to(torch.int8), "of whole numbers"),
        (lambda tensor: tensor.cfloat(), "complex"),
        (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "quantised"),
    ],
    ids=["meta", "sparse", "whole", "complex", "quantised"],
)
@pytest.mark.filterwarnings("ignore")  # torch's own, where it writes and reads these kinds
def test_tensors_of_another_kind_are_no_weights(change: Any, kind: str, network: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    torch.save({"model": {**state, "out.weight": change(state["out.weight"])}}, tmp_path / "weights.pt")
    for prefix in (None, "model"):
        with pytest.raises(InputError, match=rf"\(under model\): out.weight is {kind}, not of floating-point numbers"):
            load_weights(ConvNet(), tmp_path / "weights.pt", prefix)


def test_numbers_of_another_precision_are_weights(network: nn.Module, tmp_path: Path) -> None:
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}  # whole ones, too, as averages are
    torch.save(state, tmp_path / "weights.pt")
    fresh = ConvNet()
    load_weights(fresh, tmp_path / "weights.pt")
    assert same(network, fresh)


class Misused:
    """Arguments that what is harmless does not take."""

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return OrderedDict, (1,)


def test_weights_are_never_unpickled(tmp_path: Path) -> None:
    torch.save({"state_dict": ConvNet().state_dict(), "more": Bomb()}, tmp_path / "bomb.pt")
    torch.save(ConvNet(), tmp_path / "module.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    for name, culprit in (("bomb.pt", "exec"), ("module.pt", "foreign_networks.ConvNet"), ("bare.pt", "exec")):
        with pytest.raises(InputError, match=rf"holds Python objects \({culprit}\), which are not unpickled"):
            read_tensors(tmp_path / name)
    assert "exploded" not in sys.modules


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_damaged_and_missing_weights(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"not a readable file of weights \(.*No such file.*: get it again, or name an"
    ):
        read_tensors(tmp_path / name)
    torch.save({"a": torch.ones(2), "options": Misused()}, tmp_path / "misused")
    misused = (tmp_path / "misused").read_bytes()
    for content in (b"", b"PK\3\4 cut", b"\x40" + bytes(7) + b"{ cut", broken_archive(), misused):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="not a readable file of weights"):
            read_tensors(tmp_path / name)


def test_an_archive_of_others_is_told_as_such(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", a=np.ones(2))
    with pytest.raises(InputError, match=r"weights.npz is not .* \(neither safetensors nor written by torch.save\)"):
        read_tensors(tmp_path / "weights.npz")


def test_a_file_in_a_folder_is_named_where_there_is_one(tmp_path: Path) -> None:
    one, several, none = f"{tmp_path}/b.pt", "the file of weights", "the file that .*dcp_to_torch_save.* makes of it"
    names = ("b.pt", one), ("a.pt", several), (".metadata", none)
    for name, told in names:
        (tmp_path / name).touch()
        with pytest.raises(InputError, match=rf"is a folder: name {told} in its place"):
            read_tensors(tmp_path)


def broken_archive() -> bytes:
    """Its end is there, and what stands before that is not."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    return file.getvalue().replace(b"PK\1\2", b"PK\1\3")
