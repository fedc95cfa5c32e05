"""A page on this machine to draw from exported generators by hand. Needs gradio: ``pip install gradio``.

The page talks to this machine only: it is served on 127.0.0.1, has no analytics, and loads nothing from elsewhere.
"""

import atexit
import html
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netinv.app.parsing import parse_field, parse_mixture, parse_sharpness
from netinv.core import InputError
from netinv.sampling import Metadata, OnnxClassifier, OnnxGenerator, Pixels, Samples, save, softmax, to_pixels

if TYPE_CHECKING:
    import gradio

ANY = "any"
"""What the page offers when no class is wanted."""
_CSS = """
#images .grid-container {grid-template-columns: repeat(auto-fill, minmax(min(150px, 45%), 1fr))}
#images img {image-rendering: pixelated}
#images .thumbnail-item {display: flex; flex-direction: column; aspect-ratio: auto; height: auto; overflow: visible}
#images .caption-label {position: static; max-width: none; white-space: pre-line; text-align: left; width: 100%}
#field thead {visibility: collapse}
"""
"""The head of the latent field's table gives the columns their widths; seen, it would be one more row to type into."""


def find_networks(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """Exported networks below a folder: generators by the name that the page shows, and classifiers.

    What else is there is left out, and told on stderr.

    Raises:
        InputError: There is no generator; says why the first file that is left out is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name the one that the exported ONNX files are in.")
    generators: dict[str, Path] = {}
    classifiers: list[Path] = []
    left_out: list[str] = []
    for path in sorted(folder.rglob("*.onnx")):
        try:
            OnnxGenerator(path)
            generators[str(path.relative_to(folder))] = path
        except InputError as error:
            try:
                OnnxClassifier(path)
                classifiers.append(path)
            except InputError:
                left_out.append(f"Left out: {error}")
    if not generators:
        raise InputError(
            f"{folder} holds no exported generator: name the folder of the pipeline's ONNX files, or one that "
            "`netinv export` has written to." + (f" {left_out[0]}" if left_out else "")
        )
    for line in left_out:
        print(line, file=sys.stderr)
    return generators, classifiers


def verdicts(
    samples: Samples, generator: OnnxGenerator, classifiers: list[Path], mixture: dict[int, float] | None = None
) -> tuple[list[str], str]:
    """What each fitting classifier reads in each image, and lines on all of them.

    Of a mixture no class alone is wanted: the share that is read as each of its classes is told.
    """
    names = generator.metadata.classes
    captions = ["wanted a mixture" if mixture else f"wanted {names[label]}" for label in samples.labels]
    summary, left_out = [f"{len(samples.labels)} images"], list[str]()
    for path in classifiers:
        classifier = OnnxClassifier(path)
        if classifier.metadata.dataset != generator.metadata.dataset:
            continue  # it is of another model's
        try:
            classifier.check_fits(generator)
        except InputError as error:
            left_out.append(f"Left out: {error}")
            continue
        shares = softmax(classifier(samples.images))  # (N, K)
        read = shares.argmax(axis=1)
        name = classifier.metadata.variant or path.stem
        captions = [
            f"{caption}\n{name} {'reads' if mixture else '✓' if label == wanted else '✗'} {names[label]} ({share:.0%})"
            for caption, wanted, label, share in zip(captions, samples.labels, read, shares.max(axis=1), strict=True)
        ]
        each = [f"{np.mean(read == label):.1%} as {names[label]}" for label in mixture or ()]
        told = ", ".join(each) or f"{np.mean(read == samples.labels):.1%} as wanted"
        summary.append(f"{name} reads {told}")
    return captions, "\n".join([" · ".join(summary), *left_out])


def _temporary_folder() -> Path:
    """A private folder that goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="netinv-playground-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def cells(table: list[list[Any]]) -> dict[tuple[int, int], float]:
    """What stands in the table of the latent field, by row and column.

    Raises:
        InputError: A cell holds no number.
    """
    written = {(i, j): str(value) for i, row in enumerate(table) for j, value in enumerate(row) if value is not None}
    return parse_field(f"{i},{j}:{text}" for (i, j), text in written.items() if text.strip() not in ("", "nan"))


def _controls(metadata: Metadata) -> list[Any]:
    """Class, mixture, sharpness and field, as a model has them by default."""
    import gradio as gr

    own = ":".join(f"{end:g}" for end in dict.fromkeys(metadata.sharpness))
    side = metadata.field_side or 1  # gradio has no empty tables; this one is hidden
    peaked = f"How peaked conditions are; empty: {own}, as trained."
    return [
        gr.Dropdown(choices=[ANY, *metadata.classes], value=ANY, label="Class"),
        gr.Textbox("", label="Mixture", placeholder="3:0.6,8:0.4", info="Shares in place of a class."),
        gr.Textbox("", label="Sharpness", placeholder=own, info=peaked),
        gr.Dataframe(
            [[None] * side] * side,
            headers=[""] * side,
            type="array",
            label="Brighter (1 to 3) or darker (-1 to -3) there; empty: by chance",
            show_label=True,
            buttons=[],
            interactive=True,
            visible=metadata.field_side > 0,
            elem_id="field",
        ),
    ]


def page(folder: Path) -> "gradio.Blocks":
    """The page, not yet served.

    Raises:
        InputError: gradio is not installed, or the folder holds no generator.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import gradio as gr
    except ImportError:
        raise InputError("The playground needs gradio: pip install gradio.") from None
    generators, classifiers = find_networks(folder)
    downloads = _temporary_folder()

    def controls(model: str) -> list[Any]:
        return _controls(OnnxGenerator(generators[model]).metadata)

    def draw_images(
        model: str, label: str, mixture: str, sharpness: str, field: list[list[Any]], num: int, seed: int | None
    ) -> tuple[list[tuple[Pixels, str]], str, str]:
        try:
            if seed is None:
                raise InputError("The seed is missing: give 0 or more.")
            generator = OnnxGenerator(generators[model])
            shares = parse_mixture(mixture, generator) if mixture.strip() else None
            samples = generator.sample(
                num,
                seed=seed,
                labels=None if label == ANY or shares else generator.label(label),
                mixture=shares,
                sharpness=parse_sharpness(sharpness) if sharpness.strip() else None,
                field=cells(field),
            )
            captions, summary = verdicts(samples, generator, classifiers, shares)
            path = downloads / f"{Path(model).with_suffix('').as_posix().replace('/', '-')}-seed-{seed}.png"
            save(path, [samples], len(samples.labels), generator)
        except InputError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from None
        images = to_pixels(samples.images).transpose(0, 2, 3, 1)
        pictures = images[..., 0] if images.shape[-1] == 1 else images
        return list(zip(pictures, captions, strict=True)), summary, str(path)

    first = next(iter(generators))
    with gr.Blocks(title="Network inversion", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.Markdown("# Network inversion\nImages that a classifier reads as the class you ask for.")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                model = gr.Dropdown([*generators], value=first, label="Model")
                label, mixture, sharpness, field = controls(first)
                num = gr.Slider(1, 100, value=25, step=1, precision=0, label="Images")
                seed = gr.Number(0, precision=0, label="Seed")
                button = gr.Button("Draw", variant="primary")
                download = gr.DownloadButton("Save as PNG")
            with gr.Column(scale=3):
                # A file may come from anywhere: as Markdown or HTML a class's name could load something from elsewhere.
                summary = gr.Textbox(max_lines=8, show_label=False, container=False, elem_id="summary")
                gallery = gr.Gallery(show_label=False, height="80vh", format="png", elem_id="images")
        inputs, outputs = [model, label, mixture, sharpness, field, num, seed], [gallery, summary, download]
        # What the last model drew goes before the next one's controls come, and its images follow.
        cleared = model.change(lambda: (None, "", None), None, outputs)
        cleared.then(controls, model, inputs[1:5]).then(draw_images, inputs, outputs)
        button.click(draw_images, inputs, outputs)
        blocks.load(draw_images, inputs, outputs)
    return blocks  # type: ignore[no-any-return, unused-ignore]  # gradio may be absent, and with it its types


def serve(folder: Path, port: int, browser: bool) -> None:
    """Serve the page on 127.0.0.1 until interrupted or asked to end (SIGTERM).

    Args:
        folder: Where the exported networks are, at any depth.
        port: Port on this machine.
        browser: Open the page in the default browser.

    Raises:
        InputError: gradio is not installed, the folder holds no generator, or the port is taken.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # at once it would leave the temporary folder
    blocks = page(folder)
    import gradio as gr

    font = ["system-ui", "sans-serif"]  # the default theme asks another host for its fonts
    try:
        blocks.launch(
            server_name="127.0.0.1",
            server_port=port,
            inbrowser=browser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            theme=gr.themes.Default(font=font, font_mono=["monospace"]),
            css=_CSS,
        )
    except OSError:
        raise InputError(f"Port {port} is taken: give another one with --port.") from None
    print(f"The playground is at http://127.0.0.1:{port}; end it with Ctrl-C.", flush=True)
    threading.Event().wait()  # gradio's own waiting takes Ctrl-C for an end without an error
