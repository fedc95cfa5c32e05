"""Data sets on disk, and where they come from."""

from netinv.data.dataset import (
    Dataset,
    DatasetSpec,
    LabelledImages,
    channel_statistics,
    expect_fit,
    labelled,
    load_spec,
    load_split,
    oddities,
    pixels,
    save_dataset,
    shared,
    to_float,
    to_uint8,
)
from netinv.data.fetching import BUILT_IN, FetchConfig, fetch_dataset, load_digits
from netinv.data.folders import FolderConfig, read_image_folder, read_images

__all__ = [
    "BUILT_IN",
    "Dataset",
    "DatasetSpec",
    "FetchConfig",
    "FolderConfig",
    "LabelledImages",
    "channel_statistics",
    "expect_fit",
    "fetch_dataset",
    "labelled",
    "load_digits",
    "load_spec",
    "load_split",
    "oddities",
    "pixels",
    "read_image_folder",
    "read_images",
    "save_dataset",
    "shared",
    "to_float",
    "to_uint8",
]
