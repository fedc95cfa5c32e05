"""Stage ``fetch``: a data set from its source to tensors on disk."""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netinv.core import InputError, expanded, write_text
from pipeline.stage import path_option, replaced, stage_command

if TYPE_CHECKING:
    from netinv.data import FetchConfig


@click.command()
@click.argument("dataset")
@path_option("--out", help="Folder for the data set.")
@path_option("--metrics", help="JSON file for the counts.")
@stage_command
def main(dataset: str, out: Path, metrics: Path) -> None:
    """Fetch DATASET: from scikit-learn, torchvision, a mirror (NETINV_MIRROR) or an image folder."""
    from netinv.data import LabelledImages, fetch_dataset, oddities, save_dataset
    from pipeline import tracking
    from pipeline.params import load_params

    params = load_params().fetch
    # Where a mirror lies is a matter of the machine, and the result does not depend on it: the environment goes first.
    params = params.model_copy(update={"mirror": os.environ.get("NETINV_MIRROR") or params.mirror})

    def counts(split: LabelledImages) -> dict[str, int]:
        numbers = split.labels.bincount(minlength=len(data.classes)).tolist()
        return dict(zip(data.classes, numbers, strict=True))

    with (
        replaced(out, metrics) as folder,
        tracking.stage_run("fetch", dataset=dataset, params=params.model_dump(mode="json")) as run,
    ):
        try:
            data = fetch_dataset(dataset, _reached(params))
        except InputError as error:
            raise InputError(f"{error}{'' if dataset in params.folders else _way_back(dataset)}") from None
        spec = save_dataset(folder, dataset, *data)
        run.log_dataset(spec, out)
        run.log_metrics({"fetch/num_train": spec.num_train, "fetch/num_test": spec.num_test}, step=0)
        numbers = {
            "num_train": spec.num_train,
            "num_test": spec.num_test,
            "train": counts(data.train),
            "test": counts(data.test),
        }
        write_text(metrics, json.dumps(numbers, indent=2) + "\n")
    for sentence in oddities(data):
        print(f"fetch {dataset}: warning: {sentence}", file=sys.stderr)
    print(f"fetch {dataset}: {spec.num_train} train and {spec.num_test} test images", file=sys.stderr)


def _way_back(dataset: str) -> str:
    """How a data set that was fetched before is kept: DVC has removed it, for any change under ``fetch`` or of code."""
    with contextlib.suppress(OSError):
        if f"fetch@{dataset}:".encode() in Path("dvc.lock").read_bytes():
            return (
                " The one that was fetched before comes back, and is kept, by "
                f"`dvc checkout --force fetch@{dataset} && dvc commit --force fetch@{dataset}`."
            )
    return ""


def _reached(params: "FetchConfig") -> "FetchConfig":
    """Where to look: in an experiment's own copy of the repository, and what it lacks in the repository itself."""
    from pipeline.tracking import in_repository

    def there(path: str) -> str:
        return path if _holds_anything(expanded(path)) else in_repository(path)

    folders = {name: folder.model_copy(update={"path": there(folder.path)}) for name, folder in params.folders.items()}
    mirror = None if params.mirror is None else there(params.mirror)
    return params.model_copy(update={"mirror": mirror, "folders": folders})


def _holds_anything(path: Path) -> bool:
    """Whether there is an archive, or a folder with more than what git puts there to keep it."""
    try:
        return any(not part.name.startswith(".") for part in path.iterdir()) if path.is_dir() else path.exists()
    except OSError:  # whatever reads it gives the reason
        return False


if __name__ == "__main__":
    main()
