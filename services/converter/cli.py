"""The command line. Each command is a module of `services.converter.commands`."""

from typing import Final

import click

from services.common.allocator import limit_arenas
from services.converter.commands.adopt import adopt
from services.converter.commands.check import check
from services.converter.commands.plan import plan
from services.converter.commands.run import once, run
from services.converter.commands.schema import schema
from services.converter.commands.verify import verify
from services.converter.exit_codes import EXIT_CODES

__all__ = ["cli"]

_EPILOG: Final = f"""\
\b
Examples:
  converter check recipe.yaml
  converter check --strict wishes.d/ https://gitlab.example.org/unpacked/sync/-/raw/master/recipe.yaml
  converter plan --tags wishes.yaml
  CONVERTER_WISH_LISTS=recipe.yaml CONVERTER_PUBLISHERS=unpacked.cern.ch=http://127.0.0.1:8480 converter once --dry-run
  converter schema >wish-list.schema.json
  converter adopt --repository-root /cvmfs/unpacked.cern.ch --list recipe.yaml
  converter verify quay.io/ns/tool:v1 wishes.yaml

{EXIT_CODES}"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
def cli() -> None:
    """Keep the images of CVMFS repositories as wish lists have them."""
    limit_arenas()


for _command in (adopt, check, once, plan, run, schema, verify):
    cli.add_command(_command)
