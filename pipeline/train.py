"""Stage ``train``: one classifier of a data set, the one to be inverted or the independent evaluator."""

import json
import sys
from pathlib import Path
from typing import Literal

import click

from pipeline.stage import replaced, stage_command, write_csv, write_text


@click.command()
@click.argument("dataset")
@click.argument("model", type=click.Choice(["classifier", "evaluator"]))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the data set.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the checkpoint.")
@click.option("--metrics", type=click.Path(path_type=Path), required=True, help="JSON file for the metrics.")
@click.option("--plots", type=click.Path(path_type=Path), required=True, help="CSV file for the training curve.")
@stage_command
def main(
    dataset: str, model: Literal["classifier", "evaluator"], data: Path, out: Path, metrics: Path, plots: Path
) -> None:
    """Train MODEL (classifier or evaluator) on DATASET."""
    import torch
    from tqdm import tqdm

    from netinv.checkpoint import save_classifier
    from netinv.classifiers import build_classifier
    from netinv.data import channel_statistics, load_spec, load_split
    from netinv.training import predict, train_classifier
    from pipeline import tracking
    from pipeline.params import load_params

    params = getattr(load_params().for_dataset(dataset).train, model)
    spec = load_spec(data)
    train, test = load_split(data, "train"), load_split(data, "test")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with (
        replaced(out) as folder,
        tracking.stage_run(
            "train",
            dataset=dataset,
            variant=model,
            params=params.model_dump(mode="json"),
            inputs=[Path("runs/fetch") / f"{dataset}.json"],
        ) as run,
    ):
        run.log_dataset(spec, data)
        torch.manual_seed(params.seed)
        mean, std = channel_statistics(train.images)
        classifier = build_classifier(params.architecture, spec.num_classes, spec.image_shape, mean, std).to(device)
        history = []
        epochs = train_classifier(classifier, train, params.training, params.seed)
        for record in tqdm(epochs, f"train {dataset} {model}", params.training.epochs, unit="epoch", disable=None):
            history.append(record)
            run.log_metrics(
                {"train/loss": record["loss"], "train/accuracy": record["accuracy"]}, step=int(record["samples"])
            )
        logits, _ = predict(classifier, test.images)
        accuracy = (logits.argmax(dim=1).cpu() == test.labels).float().mean().item()
        run.log_metrics({"train/test_accuracy": accuracy}, step=int(history[-1]["samples"]))
        save_classifier(folder, classifier.cpu())
        run.log_artifact(folder / "weights.safetensors", folder="checkpoint")
        run.log_artifact(folder / "config.json", folder="checkpoint")
        write_text(metrics, json.dumps({"test_accuracy": accuracy, "train_accuracy": history[-1]["accuracy"]}) + "\n")
        write_csv(plots, history)
    print(f"train {dataset} {model}: test accuracy {accuracy:.4f}", file=sys.stderr)


if __name__ == "__main__":
    main()
