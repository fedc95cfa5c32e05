"""Other people's files of weights, read without unpickling, and filled in where their names fit."""

import copy
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from netinv.classifiers.archives import entries
from netinv.core import InputError, expect_regular, listed, read_json


class _PassedOver:
    """What stands in the place of a thing that is not made: it takes all that it is called with, and keeps none."""

    def __init__(self, *_: Any) -> None: ...
    def __setstate__(self, _: Any) -> None: ...


PASSED_OVER = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"datetime.{name}" for name in ("datetime", "date", "timezone", "timedelta")),
    "uuid.UUID",
    "decimal.Decimal",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")  # as Python 3.13 calls it
        for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    ),
)
"""What training checkpoints often hold beside tensors, and weights-only loading refuses: options, dates, UUIDs,
decimals, numpy's numbers and arrays, and paths. None of them is made."""

WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""What torch puts into names where a module is spread over devices, compiled or recomputed."""
HEADER = 100_000_000
"""Bytes of the largest header that safetensors reads; its length stands first in such a file."""
ASIDE = ("criterion", "loss", "metric")
"""How names begin that training leaves beside a network's own."""
FLOAT, WHOLE = "of floating-point numbers", "of whole numbers"


def load_weights(network: nn.Module, path: Path, prefix: str | None = None) -> None:
    """Fill a network from a file of weights.

    Args:
        network: In place.
        path: Safetensors, or tensors in mappings or tuples written by ``torch.save``, or the index of several such
            files; other entries are passed over.
        prefix: Where the network's names begin, dots between the keys of nested mappings; ``None`` looks for the one
            place where every name of the network is found with its shape, wrappers such as ``module`` left out.

    Raises:
        InputError: The file cannot be read without unpickling, or no place or several places fit.
    """
    try:
        state = network.state_dict(keep_vars=True)  # in which tied weights are one object
    except TypeError:  # a state_dict of its author's own
        state = network.state_dict()
    own = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    wanted = _under("", own)
    tensors = renamed(read_tensors(path), wanted)
    places = _places(tensors, wanted)
    if prefix is not None:
        places = [prefix.removesuffix(".") + "." if prefix else ""]
    misfits = {place: _misfit(_under(place, tensors), wanted) for place in places}
    fitting = [place for place, misfit in misfits.items() if not misfit]
    if len(fitting) > 1:
        names = ", ".join(place.removesuffix(".") or "(top level)" for place in fitting)
        raise InputError(
            f"{path} holds weights that fit in {len(fitting)} places: name one as weights_prefix: {names}."
        )
    if not fitting:
        renaming = (_under(place, tensors) for place in (places or [""]))
        given = next((each for each in renaming if not _unlike(each, wanted) and _loads(network, each)), None)
        if given is not None:
            network.load_state_dict(given)
            return
        best = places[0] if places else ""
        has, asked = listed(list(tensors), 3), listed(list(wanted), 3)
        reason = misfits.get(best) or f"it has {has} where the network has {asked}"
        where = f" (under {best.removesuffix('.')})" if best else ""
        raise InputError(f"{path} does not hold the weights of this network{where}: {reason}.")
    given = _under(fitting[0], tensors)
    # Batch counters and weights that are tied to others are what a file may lack.
    network.load_state_dict({name: given[plain] for plain, name in _plain(own).items() if plain in given}, strict=False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, dots between the keys of nested mappings and places in lists, on the CPU.

    Args:
        path: A file, or the index (``.json``) of several that lie beside it.

    Raises:
        InputError: A file is missing or damaged, or holds more than tensors and plain values.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name {held(path)} in its place.")
    tensors: dict[str, Tensor] = {}
    for part in _shards(path) if path.suffix == ".json" else [path]:
        tensors |= _read(part)
    return tensors


def held(folder: Path) -> str:
    """The file of weights in somebody's folder, as a message calls it: an index, the only one, or what becomes one."""
    if (folder / ".metadata").exists():  # a checkpoint of torch.distributed
        return "the file that torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, file) makes of it"
    for forms in (("*.index.json",), ("*.safetensors", "*.bin", "*.pt*")):
        found = [path for form in forms for path in folder.glob(form)]
        if len(found) == 1:
            return str(found[0])
    return "the file of weights"


def _shards(index: Path) -> list[Path]:
    """The files that an index names.

    Raises:
        InputError: It is none, or names files in other folders.
    """
    found = read_json(index, "name a file of weights")
    names = found.get("weight_map") if isinstance(found, dict) else None
    files = sorted({str(file) for file in names.values()}) if isinstance(names, dict) else []
    if not files or any(Path(file).name != file for file in files):
        raise InputError(f"{index} is no index of files of weights that lie beside it: name a file of weights.")
    return [index.parent / file for file in files]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        expect_regular(path)
        with path.open("rb") as file:  # and not its path, of which torch would take the ending for its kind
            start = file.read(9)
            if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= HEADER:
                return load_file(path)
            _check_kind(path, start)
            file.seek(0)
            # Warnings of torch tell of its own source, such as that it looks through sparse tensors.
            with (
                torch.serialization.safe_globals([(_PassedOver, name) for name in PASSED_OVER]),
                warnings.catch_warnings(action="ignore"),
            ):
                return _flatten(torch.load(file, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S{1,80})", str(error))
        culprit = f" ({found[1]})" if found else ""
        raise InputError(
            f"{path} holds Python objects{culprit}, which are not unpickled: save just its weights, where it was made, "
            "by torch.save(model.state_dict(), new_path), or, if you trust the file, since this runs code in it, by "
            "torch.save(torch.load(path, weights_only=False)['key of the weights'], new_path)."
        ) from None
    except InputError:
        raise
    except (
        OSError,
        SafetensorError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} is not a readable file of weights ({reason}): get it again, or name another file."
        ) from None


def renamed(tensors: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Tensors by the names that a DenseNet of torchvision's wants: the files that it publishes have older ones."""
    if not any(re.search(r"denselayer\d+\.(norm|conv)[12]\.", name) for name in wanted):
        return dict(tensors)
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)")
    return {old.sub(r"\1", name): tensor for name, tensor in tensors.items()}


def _check_kind(path: Path, start: bytes) -> None:
    """Refuse what torch would take for something else, and give bad advice on.

    Raises:
        InputError: Says what the file is.
    """
    names = entries(path)
    others = names and not names & {"data.pkl", "constants.pkl", "archive_format"}  # an archive of numpy's or Keras'
    if start and (others or not start.startswith((b"PK", b"\x80"))):  # what torch wrote before 1.6 is a bare pickle
        raise InputError(
            f"{path} is not a readable file of weights (neither safetensors nor written by torch.save): save them, "
            "where they are, by torch.save(model.state_dict(), path)."
        )
    if start.startswith(b"PK") and not names:
        raise InputError(f"{path} is not a readable file of weights (its end is missing or damaged): get it again.")
    if "constants.pkl" in names:
        raise InputError(
            f"{path} is a TorchScript archive, not a file of weights: save those by "
            "torch.save(torch.jit.load(path).state_dict(), other_path)."
        )
    if "archive_format" in names:
        raise InputError(f"{path} is an exported program, architecture and all: give it as the model, a .pt2 file.")


def _flatten(value: Any, name: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {name: value}
    if not isinstance(value, Mapping) and (name or not isinstance(value, (tuple, list))):
        return {}  # lists in a checkpoint are its history or snapshots
    tensors: dict[str, Tensor] = {}
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        tensors |= _flatten(item, f"{name}.{key}" if name else str(key))
    return tensors


def _plain(names: Iterable[str]) -> dict[str, str]:
    """Names by what is left of them without wrappers; all by themselves where two would become one."""
    names = list(names)
    plain = {_without_wrappers(name): name for name in names}
    return plain if len(plain) == len(names) else {name: name for name in names}


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _under(place: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under a prefix, by their plain names."""
    names = _plain(name.removeprefix(place) for name in tensors if name.startswith(place))
    return {plain: tensors[place + name] for plain, name in names.items()}


def _places(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Every prefix under which at least one wanted name is found, the richest first."""
    found: Counter[str] = Counter()
    for name in tensors:
        starts = [0, *(i + 1 for i, character in enumerate(name) if character == ".")]
        starts = [start for start in starts if name[start:].partition(".")[0] not in WRAPPERS]
        found.update(name[:start] for start in starts if _without_wrappers(name[start:]) in wanted)
    return [place for place, _ in found.most_common()]


def _loads(network: nn.Module, given: Mapping[str, Tensor]) -> bool:
    """Whether torch itself loads all of these: modules may have hooks for older names, such as ``weight_norm``'s."""
    try:
        trial = copy.deepcopy(network)
        for tensor in _floats(trial):
            tensor.fill_(torch.nan)
        trial.load_state_dict(given)
    except Exception:  # the hooks, and copying, may be code of the network's author
        return False
    return not any(bool(tensor.isnan().any()) for tensor in _floats(trial))  # some authors' loading is not strict


def _floats(network: nn.Module) -> list[Tensor]:
    state = network.state_dict().values()
    return [value for value in state if isinstance(value, Tensor) and value.is_floating_point()]


def _misfit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Why tensors are not the wanted ones, in words; empty if they are."""
    tied = {id(wanted[name]) for name in given if name in wanted}
    missing = [name for name in wanted if name not in given and id(wanted[name]) not in tied]
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in wanted and not name.endswith("num_batches_tracked")]
    unknown = [name for name in unknown if not name.startswith(ASIDE)]
    other = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    reasons = [f"it lacks {listed(missing, 3)}"] if missing else []
    drop = "" if missing else " (if it needs none of that, leave it out of the file)"
    reasons += [f"it has {listed(unknown, 3)}, which the network has not{drop}"] if unknown else []
    reasons += [f"{name} is {tuple(given[name].shape)}, not {tuple(wanted[name].shape)}" for name in other[:2]]
    return ", and ".join(reasons + _unlike(given, wanted)[:2])


def _unlike(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Tensors that torch would not copy to the wanted ones, or not by what they stand for, each in words."""
    kinds = [(name, _kind(given[name]), _kind(wanted[name])) for name in wanted if name in given]
    # Averaged checkpoints hold whole numbers as floats.
    return [
        f"{name} is {has}, not {asks}" for name, has, asks in kinds if has != asks and (has, asks) != (FLOAT, WHOLE)
    ]


def _kind(tensor: Tensor) -> str:
    """What stands in a tensor, in words."""
    if tensor.is_meta:
        return "without values (saved on the device meta)"
    if tensor.is_quantized or tensor.layout != torch.strided:
        return "quantised" if tensor.is_quantized else "sparse"
    return FLOAT if tensor.is_floating_point() else "complex" if tensor.is_complex() else WHOLE
