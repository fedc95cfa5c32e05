"""The files of an audit: by the published schema, as JUnit's XML, and as a page that needs nothing else."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import torch
from draws import torch_rng
from pages import complaints, on_every_screen
from ruamel.yaml import YAML

from netinv.audit import SCHEMA, AuditRecord, Check, Number, load_audit, save_audit, schema
from netinv.audit.record import Files, Recognised, gravest
from netinv.core import InputError
from netinv.data import LabelledImages
from netinv.results import Estimate, NotMeasured

FILES = Files(name="<b>it</b>", sha256="0" * 64, num=3)


def made_up() -> AuditRecord:
    numbers = (
        Number(name="a", meaning="A share", measure=Estimate(value=0.5, low=0.4, high=0.6, n=9), at_most=0.3),
        Number(name="b", meaning="Nothing", measure=NotMeasured(not_measured="there is none")),
    )
    return AuditRecord(
        made="2026-11-27T00:00:00+00:00",
        verdict="fail",
        summary="It fails the policy by membership.",
        checks=(
            Check(name="leak", outcome="skipped", finding="Not asked."),
            Check(name="reconstruction", outcome="investigate", finding="One & all."),
            Check(name="membership", outcome="fail", finding="It is above.", numbers=numbers),
            Check(name="robustness", outcome="pass", finding="It holds.", numbers=numbers[1:]),
        ),
        recognised=(
            Recognised(
                flagged=True,
                train=1,
                samples="x",
                sample=2,
                distance=0.1,
                p_value=0.01,
                control=0,
                control_sample=3,
                control_samples="x",
                control_distance=0.4,
            ),
        ),
        num_recognised=1,
        model=FILES,
        architecture="ConvNet",
        adapter={},
        evaluator=None,
        train=FILES.model_copy(update={"name": "train"}),
        test=FILES.model_copy(update={"name": "test"}),
        samples=(FILES,),
        policy={"seed": 0},
        shadow_models="",
        versions={"netinv": "0"},
        limits=("It proves nothing.",),
        seconds=1.5,
        threads=1,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = torch_rng(0)
    real = LabelledImages(
        torch.randint(0, 256, (4, 1, 8, 8), generator=rng, dtype=torch.uint8), torch.zeros(4, dtype=torch.long)
    )
    save_audit(tmp_path, made_up(), real, real, {"x": torch.rand(4, 1, 8, 8, generator=rng)})
    return tmp_path


def test_the_published_schema_is_that_of_the_types(root: Path, folder: Path) -> None:
    published = json.loads((root / "docs" / SCHEMA).read_text())
    assert published == json.loads(json.dumps(schema())), "write it anew: json.dumps(netinv.audit.schema(), indent=1)"
    jsonschema.Draft202012Validator.check_schema(published)
    written = json.loads((folder / "audit.json").read_text())
    jsonschema.validate(written, published)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written | {"verdict": "maybe"}, published)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({name: value for name, value in written.items() if name != "model"}, published)
    assert load_audit(folder / "audit.json") == made_up()
    with pytest.raises(InputError, match=r"absent\.json is not readable"):
        load_audit(folder / "absent.json")


def test_build_servers_see_each_check(folder: Path) -> None:
    suite = ElementTree.parse(folder / "junit.xml").getroot()
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    cases = {case.get("name"): case for case in suite}
    failure = cases["membership"].find("failure")
    assert failure is not None
    assert (failure.get("message"), failure.get("type")) == ("It is above.", "fail")
    assert failure.text == "A share: 0.5 (0.4 to 0.6)\nNothing: not measured: there is none"
    error = cases["reconstruction"].find("error")
    assert error is not None
    assert error.get("message") == "One & all."
    assert cases["leak"].find("skipped") is not None
    assert cases["robustness"].find("system-out") is not None


def test_the_page_needs_nothing_else_and_shows_everything(folder: Path) -> None:
    page = (folder / "audit.html").read_text()
    assert not re.search(r"https?://|<script|@import|<b>it</b>", page)
    assert "&lt;b&gt;it&lt;/b&gt;" in page
    for text in (
        "FAIL",
        "0" * 64,
        "0.5 (0.4 to 0.6)",
        "&le;&nbsp;0.3",
        "It proves nothing.",
        "Named.",
        "&#34;seed&#34;: 0",
    ):
        assert text in page, text
    assert page.count("data:image/png;base64,") == 1


@on_every_screen
def test_the_page_in_a_browser(folder: Path, browser: Any, width: int, scheme: str) -> None:
    path = folder / "audit.html"
    assert path.stat().st_size < 3e6
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    told: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert complaints(page) == []
    assert told == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    for cell in page.locator("th, td").all():  # no table hides a column
        place = cell.bounding_box()
        assert place["x"] + place["width"] <= width


@pytest.mark.parametrize(
    ("style", "words"),
    [
        ("body { color: #999 } ", "contrast 2.8"),
        ("main { width: 2000px }", "wider than the screen"),
        ("pre { white-space: pre; width: 3px; overflow-x: scroll }", "scrolls, but not by keyboard"),
    ],
)
def test_a_page_that_falls_short_is_noticed(folder: Path, browser: Any, style: str, words: str) -> None:
    text = (folder / "audit.html").read_text().replace('<pre tabindex="0">', "<pre>")
    (folder / "audit.html").write_text(text.replace("</style>", f"{style}</style>"))
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
    page.goto((folder / "audit.html").as_uri())
    assert any(words in complaint for complaint in complaints(page)), complaints(page)


def test_a_number_decides_on_the_ends_of_its_interval() -> None:
    def outcome(low: float, high: float, **limit: float) -> str:
        measure = Estimate(value=(low + high) / 2, low=low, high=high, n=9)
        return Number(name="a", meaning="A", measure=measure, **limit).outcome

    assert outcome(0.1, 0.3, at_most=0.3) == "pass"
    assert outcome(0.1, 0.4, at_most=0.3) == "investigate"
    assert outcome(0.31, 0.4, at_most=0.3) == "fail"
    assert outcome(0.3, 0.4, at_least=0.3) == "pass"
    assert outcome(0.2, 0.4, at_least=0.3) == "investigate"
    assert outcome(0.1, 0.2, at_least=0.3) == "fail"
    assert outcome(0.1, 0.2) == "skipped"
    unknown = Number(name="a", meaning="A", measure=NotMeasured(not_measured="there is none"), at_most=0.3)
    assert unknown.outcome == "investigate"
    assert gravest([]) == "skipped"
    assert gravest(["pass", "fail", "investigate", "skipped"]) == "fail"


def test_the_workflow_is_one(root: Path) -> None:
    workflow = YAML(typ="safe", pure=True).load(root / "docs/audit-workflow.yml")
    steps = workflow["jobs"]["audit"]["steps"]
    assert any("netinv audit" in step.get("run", "") for step in steps)
