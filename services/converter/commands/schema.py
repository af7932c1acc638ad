"""`converter schema`."""

import click

from services.common.command_line import write_document
from services.converter.wishlist.grammar import json_schema

__all__ = ["schema"]


@click.command(epilog="Example: converter schema >wish-list.schema.json")
def schema() -> None:
    """Print the JSON Schema of wish lists of version 2, by which editors complete and check them."""
    write_document(json_schema())
