"""What other people's classifiers give: the scores found in it, told apart, and made logits."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from netinv.core import InputError

OutputKind = Literal["logits", "probabilities", "log_probabilities", "sigmoid"]
"""What rows of scores are; ``sigmoid`` is a probability for each column by itself."""


def detect_output(output: Tensor, dtype: torch.dtype = torch.float32) -> OutputKind:
    """What rows of numbers (N, K) are, by their sign and their sum, in as far as a precision tells.

    Example:
        >>> detect_output(torch.tensor([[0.2, 0.8]])), detect_output(torch.tensor([[0.2, 1.8]]))
        ('probabilities', 'logits')
    """
    # Each share is rounded by half an epsilon of itself, and a logarithm of -10 by ten times as much.
    close, one = max(1e-3, 4 * torch.finfo(dtype).eps), torch.ones(()).to(output)
    if bool((output >= 0).all()) and torch.allclose(output.sum(dim=1), one, atol=close):
        return "probabilities"
    if bool((output <= 1e-6).all()) and torch.allclose(output.exp().sum(dim=1), one, atol=close):
        return "log_probabilities"
    return "logits"


def to_logits(scores: Tensor, kind: OutputKind) -> Tensor:
    """Scores (N, K) as logits (N, K), or (N, 2) of a single column: of its class 0, and of its class 1."""
    limits = torch.finfo(scores.dtype)
    if kind == "probabilities":
        return scores.clamp(min=limits.tiny).log()
    if kind == "sigmoid":  # next to 1 there is nothing between it and half an epsilon less
        scores = scores.clamp(min=limits.tiny).log() - (1 - scores).clamp(min=limits.eps / 2).log()
    return torch.cat([-scores / 2, scores / 2], dim=1) if scores.shape[1] == 1 else scores


def find_scores(
    output: Any, entry: int | str | None, num_classes: int | None, single: bool, shape: Sequence[int]
) -> Tensor:
    """The scores in what a classifier gave, float32.

    Args:
        output: A tensor, or a mapping, tuple or object that holds one.
        entry: Which entry; ``None`` is the only one that can be meant.
        num_classes: K, or ``None`` for any.
        single: Whether one score for each image, (N,) or (N, 1), stands for two classes.
        shape: Of the batch that it was given, (N, ...).

    Returns:
        (N, K), or (N, 1) for a single score.

    Raises:
        InputError: There are none, not one row for each image, or it is not clear which.
    """
    num = shape[0]
    entries = _entries(output)
    if entries is None and entry is not None:
        raise InputError(f"The output is {_described(output)} and has no entries: leave output_entry {entry!r} out.")
    scores = output if entries is None else _entry(output, entries, entry, num_classes, single, num)
    if isinstance(scores, Tensor) and scores.is_floating_point():
        if scores.ndim == 1 or (scores.ndim == 2 and scores.shape[1] == 1):
            if not single:
                raise InputError(
                    "The classifier gives one score for each image: set output to sigmoid, which takes it, or the "
                    "probability that it stands for, as that of class 1 of two."
                )
            scores = scores.reshape(-1, 1)
        if scores.ndim == 2:
            known = _columns(scores)
            if single and num_classes == 1:
                raise InputError(
                    "A single score, which output sigmoid takes, is that of class 1 of two: num_classes is 2."
                )
            if num_classes not in (None, known):
                raise InputError(
                    f"The classifier gives {known} scores for each image, but num_classes is {num_classes}."
                )
            if scores.shape[0] != num:
                raise InputError(
                    f"The classifier gives {scores.shape[0]} rows of scores for {num} images of shape "
                    f"{tuple(shape[1:])}: have it give one for each, check image_shape, or give the input_shape that "
                    "it takes."
                )
            return scores.float()
    advice = _advice(scores, "output", num)
    raise InputError(
        f"Expected one row of scores for each image, (N, K), but the classifier gives {_described(scores)}{advice}."
    )


def _entries(output: Any) -> Mapping[Any, Any] | None:
    """What a container holds, by key, name or place; ``None`` for anything else."""
    if isinstance(output, Tensor):
        return None
    if isinstance(output, Mapping):
        return output
    if isinstance(output, (tuple, list)):
        named = getattr(output, "_asdict", None)
        return dict(enumerate(output)) if named is None else dict(named())
    if is_dataclass(output):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return getattr(output, "__dict__", None)


def _entry(
    output: Any,
    entries: Mapping[Any, Any],
    wanted: int | str | None,
    num_classes: int | None,
    single: bool,
    num: int,
) -> Any:
    """The entry of a container that holds the scores."""
    told = ", ".join(f"{name} {_described(value, '')}" for name, value in entries.items())
    if isinstance(wanted, int) and isinstance(output, (tuple, list)):
        entries = dict(enumerate(output))  # places, also of a named tuple
    if wanted is not None:
        if wanted not in entries:
            raise InputError(f"The output has no entry {wanted!r}; it has: {told}.")
        return entries[wanted]
    tables = {name: value for name, value in entries.items() if _is_table(value, single)}
    fitting = [value for value in tables.values() if num_classes in (None, _columns(value))]
    if len(fitting) == 1 or len(tables) == 1:
        return fitting[0] if fitting else next(iter(tables.values()))
    if not tables:
        advice = next(filter(None, (_advice(value, f"output[{name!r}]", num) for name, value in entries.items())), "")
        raise InputError(f"No entry of the output is one row of scores for each image, (N, K), of {told}{advice}.")
    if not fitting:
        raise InputError(f"No entry of the output has scores for {num_classes} classes (num_classes), of {told}.")
    raise InputError(
        f"{len(fitting)} entries of the output could be the logits, of {told}: name one with output_entry."
    )


def _columns(scores: Tensor) -> int:
    """K: a single score stands for two classes."""
    return 2 if scores.ndim == 1 else max(scores.shape[1], 2)


def _is_table(value: Any, single: bool) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim in ((1, 2) if single else (2,))


def _described(value: Any, tensor: str = "a tensor of shape ") -> str:
    """A value in a few words."""
    if not isinstance(value, Tensor):
        return "None" if value is None else f"a {type(value).__name__}"
    dtype = "" if value.is_floating_point() else f" of {str(value.dtype).removeprefix('torch.')}"
    return f"{tensor}{tuple(value.shape)}{dtype}"


def _advice(value: Any, name: str, num: int) -> str:
    """What to do about scores of another shape, where that is known; empty elsewhere."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim not in (3, 4):
        return ""
    cases = [("(2, 3)", "pixels, as for segmentation")] if value.ndim == 4 else [("1", "tokens")]
    if value.ndim == 3 and value.shape[1] == num:
        members = "0", "time steps or of the members of an ensemble"
        cases = [*cases, members] if value.shape[0] == num else [members]  # or either
    ways = [
        f"if those are scores of {parts}, wrap the network so that it gives {name}.mean(dim={dims})"
        for dims, parts in cases
    ]
    return "; " + ", and ".join(ways)
