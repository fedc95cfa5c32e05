"""Stage ``train``: one classifier of a data set, the one to be inverted or the independent evaluator.

It is trained here, or exists already and is checked.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from netinv.core import best_device, save_csv, write_text
from pipeline.stage import path_option, replaced, stage_command

if TYPE_CHECKING:
    from netinv.classifiers import Classifier, ClassifierSource, ImportedClassifier
    from netinv.data import DatasetSpec, LabelledImages
    from pipeline.params import ModelParams
    from pipeline.tracking import Run


@click.command()
@click.argument("dataset")
@click.argument("model", type=click.Choice(["classifier", "evaluator"]))
@path_option("--data", help="Folder of the data set.")
@path_option("--out", help="Folder for the checkpoint.")
@path_option("--metrics", help="JSON file for the metrics.")
@path_option("--plots", help="CSV file for the training curve.")
@stage_command
def main(
    dataset: str, model: Literal["classifier", "evaluator"], data: Path, out: Path, metrics: Path, plots: Path
) -> None:
    """Train MODEL (classifier or evaluator) on DATASET, or take the network that train.MODEL.source names."""
    from netinv.classifiers import predict
    from netinv.data import load_spec, load_split
    from pipeline import tracking
    from pipeline.estimates import check_classifier_training
    from pipeline.params import load_params

    params = getattr(load_params().for_dataset(dataset).train, model)
    spec = load_spec(data)
    train, test = load_split(data, "train"), load_split(data, "test")
    if params.source is None:
        check_classifier_training(f"train.{model}", params, spec)
    unused = set() if params.source is None else {"architecture", "training"}
    with (
        replaced(out, metrics, plots) as folder,
        tracking.stage_run(
            "train",
            dataset=dataset,
            variant=model,
            params=params.model_dump(mode="json", exclude=unused),
            inputs=[tracking.lineage_path("fetch", dataset)],
        ) as run,
    ):
        run.log_dataset(spec, data)
        classifier: Classifier | ImportedClassifier
        if params.source is None:
            classifier, history = _trained(f"train {dataset} {model}", params, spec, train, run, folder)
        else:
            classifier, history = _taken(f"train {dataset} {model}", _reached(params.source), spec, train, folder)
        logits, _ = predict(classifier, test.images)
        accuracy = (logits.argmax(dim=1).cpu() == test.labels).float().mean().item()
        run.log_metrics({"train/test_accuracy": accuracy}, step=int(history[-1]["samples"]))
        for path in sorted(folder.iterdir()):
            run.log_artifact(path, folder="checkpoint")
        write_text(metrics, json.dumps({"test_accuracy": accuracy, "train_accuracy": history[-1]["accuracy"]}) + "\n")
        save_csv(plots, history)
    print(f"train {dataset} {model}: test accuracy {accuracy:.4f}", file=sys.stderr)


def _trained(
    title: str, params: "ModelParams", spec: "DatasetSpec", train: "LabelledImages", run: "Run", folder: Path
) -> "tuple[Classifier, list[dict[str, float]]]":
    """A network of this library's, trained and saved; and what its epochs told."""
    import torch
    from tqdm import tqdm

    from netinv.classifiers import build_classifier, save_classifier, train_classifier
    from netinv.data import channel_statistics

    torch.manual_seed(params.seed)
    mean, std = channel_statistics(train.images)
    classifier = build_classifier(params.architecture, spec.num_classes, spec.image_shape, mean, std)
    classifier.to(best_device())
    history = []
    epochs = train_classifier(classifier, train, params.training, params.seed)
    for record in tqdm(epochs, title, params.training.epochs, unit="epoch", disable=None):
        history.append(record)
        run.log_metrics(
            {"train/loss": record["loss"], "train/accuracy": record["accuracy"]}, step=int(record["samples"])
        )
    save_classifier(folder, classifier)
    return classifier, history


def _taken(
    title: str, source: "ClassifierSource", spec: "DatasetSpec", train: "LabelledImages", folder: Path
) -> "tuple[ImportedClassifier, list[dict[str, float]]]":
    """A network from elsewhere, checked and saved; and its accuracy as that of an epoch before the first.

    Raises:
        InputError: It cannot be inverted as it is; says why.
    """
    import torch.nn.functional as F

    from netinv.classifiers import check_classifier, import_classifier, predict
    from netinv.core import InputError

    source = source.model_copy(
        update={
            "image_shape": source.image_shape or spec.image_shape,
            "num_classes": source.num_classes or spec.num_classes,
        }
    )
    classifier = import_classifier(source, folder)
    if classifier.image_shape != spec.image_shape or classifier.num_classes != spec.num_classes:
        raise InputError(
            f"{source.model} reads images of shape {classifier.image_shape} as {classifier.num_classes} classes, but "
            f"{spec.name} has {spec.image_shape} and {spec.num_classes}: set train.classifier.source to fit."
        )
    report = check_classifier(
        classifier.network, classifier.image_shape, classifier.num_classes, classifier.config, train
    )
    if not report.ok:
        raise InputError(" ".join(finding.message for finding in report.findings if finding.severity == "error"))
    for finding in report.findings:
        print(f"{title}: {finding.severity}: {finding.message}", file=sys.stderr)
    classifier.to(best_device())
    logits, _ = predict(classifier, train.images)
    loss = F.cross_entropy(logits.cpu(), train.labels).item()
    accuracy = (logits.argmax(dim=1).cpu() == train.labels).float().mean().item()
    return classifier, [{"epoch": 0, "samples": 0, "loss": loss, "accuracy": accuracy}]


def _reached(source: "ClassifierSource") -> "ClassifierSource":
    """A source with the files that lie in the repository alone; those of an experiment's own copy go first."""
    from pipeline.tracking import in_repository

    named = {"model": source.model, "weights": source.weights or ""}
    places = {key: in_repository(value) for key, value in named.items() if value and not Path(value).exists()}
    return source.model_copy(update={key: place for key, place in places.items() if Path(place).exists()})


if __name__ == "__main__":
    main()
