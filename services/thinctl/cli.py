"""The command line."""

from pathlib import Path
from typing import Final

import click

from services.common.command_line import run_async, write_document
from services.publisher.journal.model import LayerState
from services.thinctl import commands, tables
from services.thinctl.exit_codes import EXIT_CODES
from services.thinctl.image_cli import images
from services.thinctl.options import (
    CHANGING,
    READING,
    changer,
    demand_names_or_failed,
    reader,
    show_restarted,
    timeout_option,
)

__all__ = ["cli"]

_EPILOG: Final = f"""\
\b
Examples:
  thinctl status
  thinctl list --state failed
  thinctl show 1be7f2b886e8
  thinctl retry --failed
  thinctl pause --reason 'a new disk' && systemctl restart nfs-server && thinctl resume
  thinctl check --json
  thinctl images list --state failed
  thinctl images publish quay.io/ns/tool:v1 --wait
  docker compose exec publisher thinctl status

Without --publisher and THINCTL_PUBLISHER, the publisher of this machine is meant. Commands that change
something need its token: from --token-file, THINCTL_TOKEN[_FILE], or, beside a publisher, from its own
settings. No option takes the token itself: everybody on the machine could read it.

{EXIT_CODES}"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
def cli() -> None:
    """Watch and steer the publisher of a repository."""


cli.add_command(images)


@cli.command(epilog="Example: thinctl status --json")
@READING
def status(*, publisher: str | None, as_json: bool) -> None:
    """Show how the publisher is: what waits, what is under way, what keeps it from publishing."""
    found = run_async(commands.status(reader(publisher)))
    if as_json:
        write_document(found.model_dump(mode="json"))
    else:
        tables.show_status(found)


@cli.command(epilog="Example: thinctl publishers")
@READING
def publishers(*, publisher: str | None, as_json: bool) -> None:
    """Show the publishers of the repository: who leads, who works on how much, who has ended or gone."""
    found = run_async(commands.status(reader(publisher))).publishers
    if as_json:
        write_document({"publishers": [entry.model_dump(mode="json") for entry in found]})
    else:
        tables.show_publishers(found)


@cli.command("list", epilog="Example: thinctl list --state failed --reason 'metadata' --all")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in LayerState]),
    help="Layers in this state; may be given several times.",
)
@click.option("--refused", is_flag=True, help="Failed layers that are not tried again by themselves.")
@click.option("--reason", metavar="TEXT", help="Layers whose last failure has this text in its reason.")
@click.option("--digest", metavar="HEX", help="Layers whose digest begins so.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most layers to show.")
@click.option("--all", "everything", is_flag=True, help="Show all of them.")
@READING
def list_layers(
    *,
    states: tuple[str, ...],
    refused: bool,
    reason: str | None,
    digest: str | None,
    limit: int,
    everything: bool,
    publisher: str | None,
    as_json: bool,
) -> None:
    """List layers, those first that changed last."""
    query = [("state", state) for state in states]
    query += [(name, value) for name, value in (("reason", reason), ("digest", digest)) if value]
    query += [("refused", "true")] if refused else []
    layers, more = run_async(commands.layers(reader(publisher), query, limit=None if everything else limit))
    if as_json:
        write_document({"layers": [layer.model_dump(mode="json") for layer in layers], "more": more})
        return
    tables.show_layers(layers)
    if more:
        tables.say(f"there are more than these {len(layers)}: --all shows them")


@cli.command(epilog="Example: thinctl show 1be7f2b886e8")
@click.argument("digest")
@READING
def show(*, digest: str, publisher: str | None, as_json: bool) -> None:
    """Show all that is known of a layer; the first digits of its digest are enough."""
    layer = run_async(commands.layer(reader(publisher), digest))
    if as_json:
        write_document(layer.model_dump(mode="json"))
    else:
        tables.show_layer(layer)


@cli.command(epilog="Examples: thinctl retry 1be7f2b886e8 --wait    thinctl retry --failed")
@click.argument("digests", nargs=-1)
@click.option("--failed", is_flag=True, help="Every failed layer, refused ones as well.")
@click.option("--wait", is_flag=True, help="Wait until the named layers are published.")
@timeout_option(600)
@CHANGING
def retry(
    *,
    digests: tuple[str, ...],
    failed: bool,
    wait: bool,
    timeout: float,
    publisher: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Try layers again now; published ones are published again if they are not in the repository any more."""
    demand_names_or_failed(digests, failed=failed, wait=wait, things="layers")
    access = changer(publisher, token_file)
    if failed:
        show_restarted(run_async(commands.retry_failed(access)), "layers", as_json=as_json)
        return
    layers = run_async(commands.retry(access, digests, timeout=timeout if wait else None))
    if as_json:
        write_document({"layers": [layer.model_dump(mode="json") for layer in layers]})
    else:
        tables.show_layers(layers)


@cli.command(epilog="Example: thinctl sweep")
@timeout_option(600)
@CHANGING
def sweep(*, timeout: float, publisher: str | None, token_file: Path | None, as_json: bool) -> None:
    """Look now for layers in the bucket that no notification announced, and wait for the end of it."""
    found = run_async(commands.sweep(changer(publisher, token_file), timeout=timeout))
    if as_json:
        write_document({"found": found})
    else:
        tables.show(f"the sweep found {found} layers to work on")


@cli.command(epilog="Example: thinctl pause --reason 'a new disk'")
@click.option("--reason", metavar="TEXT", default="", help="What for; shown to everybody.")
@click.option("--no-wait", is_flag=True, help="Do not wait for the end of the transaction that is under way.")
@timeout_option(7200)
@CHANGING
def pause(
    *,
    reason: str,
    no_wait: bool,
    timeout: float,
    publisher: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Let nothing new be published, also after a restart, until `thinctl resume`; announcements are taken."""
    access = changer(publisher, token_file)
    found = run_async(commands.pause(access, reason, timeout=None if no_wait else timeout))
    if as_json:
        write_document(found.model_dump(mode="json"))
    else:
        tables.show_status(found)


@cli.command(epilog="Example: thinctl resume")
@CHANGING
def resume(*, publisher: str | None, token_file: Path | None, as_json: bool) -> None:
    """Let publishing go on."""
    found = run_async(commands.resume(changer(publisher, token_file)))
    if as_json:
        write_document(found.model_dump(mode="json"))
    else:
        tables.show_status(found)


@cli.command(epilog="Example: thinctl check --json > disagreements.json")
@click.option("--retry", "again", is_flag=True, help="Have layers and images tried again where that mends it.")
@CHANGING
def check(*, again: bool, publisher: str | None, token_file: Path | None, as_json: bool) -> None:
    """Compare repository, journal and bucket, layer by layer, and say what to do where they disagree."""
    access = changer(publisher, token_file)
    checked = run_async(commands.check(access))
    if as_json:
        write_document(checked.document())
    else:
        tables.show_check(checked.layers, checked.found)
    if again:
        restarted = run_async(commands.retry_found(access, checked))
        tables.say(f"tried again: {restarted}; check once more when they are published")
    checked.demand_agreement()
