"""``python -m pipeline.check``: all of ``params.yaml`` tried before DVC reads it, whose own errors name no key."""

from pathlib import Path

import click

from pipeline.stage import stage_command


@click.command()
@click.option("--datasets", default="", help="Names, separated by commas, that will stand in place of the file's own.")
@click.option(
    "--evaluated", is_flag=True, help="Print the folders of the evaluations that it names and that are there."
)
@stage_command
def main(datasets: str, evaluated: bool) -> None:
    """See that params.yaml holds valid settings."""
    from pipeline.params import load_params

    params = load_params(datasets=[name.strip() for name in datasets.split(",")] if datasets else ())
    if evaluated:
        folders = (Path("evaluation", name, variant) for name in params.datasets for variant in params.variants)
        print(*filter(Path.exists, folders))


if __name__ == "__main__":
    main()
