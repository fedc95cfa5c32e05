"""An audit as files: ``audit.json``, ``junit.xml`` for build servers, and ``audit.html``, a page to be filed."""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from torch import Tensor

from netinv.audit.record import AuditRecord, Check
from netinv.audit.subject import sample_sets
from netinv.core import page_template
from netinv.data import LabelledImages, labelled, to_float
from netinv.sampling import grid

SCHEMA = "audit.schema.json"
"""The file in ``docs/`` that says what ``audit.json`` holds; also the name in its ``$id``."""
SIDE = 96
"""Pixels up to which images are enlarged."""


class PairView(NamedTuple):
    """A row of pictures: sample, training image, and the same of the control."""

    picture: str
    text: str
    flagged: bool


def schema() -> dict[str, Any]:
    """The JSON schema of ``audit.json``."""
    described = AuditRecord.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **described}


def save_audit(
    folder: Path,
    record: AuditRecord,
    train: LabelledImages,
    test: LabelledImages,
    samples: Mapping[str, Tensor] | Tensor | None = None,
) -> None:
    """Write ``audit.json``, ``junit.xml`` and ``audit.html``.

    Args:
        folder: An existing folder.
        record: What was found.
        train: The training images that were given to the audit, for the pairs.
        test: The test images, likewise.
        samples: The samples, likewise.
    """
    (folder / "audit.json").write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / "junit.xml").write_text(junit(record), encoding="utf-8")
    splits = labelled(train, "The training images"), labelled(test, "The test images")
    pairs = [] if samples is None else _pair_views(record, *splits, sample_sets(samples))
    (folder / "audit.html").write_text(page(record, pairs), encoding="utf-8")


def junit(record: AuditRecord) -> str:
    """JUnit's XML: a test case for each check. An open question is an error, as the format knows no third outcome."""
    kinds = {"fail": "failure", "investigate": "error", "skipped": "skipped"}
    counts = {
        tag: str(sum(check.outcome == outcome for check in record.checks))
        for outcome, tag in (("fail", "failures"), ("investigate", "errors"), ("skipped", "skipped"))
    }
    suite = ElementTree.Element(
        "testsuite",
        {
            "name": "netinv audit",
            "tests": str(len(record.checks)),
            **counts,
            "time": str(record.seconds),
            "timestamp": record.made,
        },
    )
    for check in record.checks:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": f"netinv.audit.{record.model.name or 'model'}", "name": check.name}
        )
        tag = kinds.get(check.outcome)
        if tag is not None:
            attributes = {"message": check.finding} | ({} if tag == "skipped" else {"type": check.outcome})
            ElementTree.SubElement(case, tag, attributes).text = _numbers_as_text(check)
        else:
            ElementTree.SubElement(case, "system-out").text = _numbers_as_text(check)
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _numbers_as_text(check: Check) -> str:
    return "\n".join(f"{number.meaning}: {number.measure}" for number in check.numbers)


def page(record: AuditRecord, pairs: list[PairView]) -> str:
    """The page, as HTML that needs nothing else."""
    policy = json.dumps(record.policy, indent=1)
    return page_template(Path(__file__).parent).render(record=record, pairs=pairs, policy=policy)


def _pair_views(
    record: AuditRecord, train: LabelledImages, test: LabelledImages, samples: Mapping[str, Tensor]
) -> list[PairView]:
    views = []
    for pair in record.recognised:
        cells = [
            to_float(samples[pair.samples][pair.sample]).cpu().numpy(),
            to_float(train.images[pair.train]).numpy(),
            to_float(samples[pair.control_samples][pair.control_sample]).cpu().numpy(),
            to_float(test.images[pair.control]).numpy(),
        ]
        text = (
            f"{pair.samples}, image {pair.sample}, and training image {pair.train}: distance {pair.distance:.3g}. "
            f"Control: {pair.control_samples}, image {pair.control_sample}, and test image {pair.control}: "
            f"{pair.control_distance:.3g}."
        )
        views.append(PairView(_picture(np.stack(cells)), text, pair.flagged))
    return views


def _picture(images: np.ndarray[Any, Any]) -> str:
    """Images (N, C, H, W) in a row, as a data address."""
    shape = images.shape[1:]
    pixels = grid([images.astype(np.float32)], len(images), shape, len(images), scale=max(1, SIDE // max(shape[1:])))
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
