"""``python -m pipeline.check``: all of ``params.yaml`` tried before DVC reads it, whose own errors name no key."""

import click

from pipeline.stage import stage_command


@click.command()
@stage_command
def main() -> None:
    """See that params.yaml holds valid settings."""
    from pipeline.params import load_params

    load_params()


if __name__ == "__main__":
    main()
