"""`thin-repository resign`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from services.common.command_line import write_document, write_output
from services.common.repository_name import RepositoryName
from services.repository.native.commands.frame import JSON, REPOSITORY, open_site
from services.repository.native.errors import StorageError
from services.repository.native.records import HashAlgorithm
from services.repository.native.rotation import drop_other_certificates, install_whitelist, renew_whitelist
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.trust.renewal import WHITELIST_VALIDITY, sign_whitelist

__all__ = ["resign", "sign_whitelist_file"]


@click.command(
    epilog="""\
\b
Examples:
  thin-repository resign thin.example.org
  thin-repository resign thin.example.org --whitelist signed-elsewhere
"""
)
@REPOSITORY
@click.option(
    "--whitelist",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take this one, which was signed where the master key is; it is verified first.",
)
@click.option("--drop-others", is_flag=True, help="Name no certificate but the present one, as after a change of keys.")
@JSON
def resign(*, whitelist: Path | None, drop_others: bool, as_json: bool, **place: Any) -> None:  # noqa: ANN401
    """Sign the whitelist anew, for thirty days; clients refuse the repository when it expires.

    A publisher that has the master key does this by itself.
    """
    if whitelist is not None and drop_others:
        raise click.UsageError("--whitelist and --drop-others exclude each other")
    with open_site(**place) as site:
        access = site.access()
        if whitelist is not None:
            state = install_whitelist(access, whitelist.read_bytes())
        elif drop_others:
            state = drop_other_certificates(access)
        else:
            state = renew_whitelist(access)
    if as_json:
        write_document({"expires": state.expires.strftime("%Y-%m-%dT%H:%M:%SZ")})
    else:
        write_output(f"clients accept the whitelist until {state.expires:%Y-%m-%d %H:%M} UTC\n")


@click.command(
    "sign-whitelist",
    epilog="Example: thin-repository sign-whitelist thin.example.org --keys usb-stick/ --output signed-elsewhere",
)
@click.argument("name")
@click.option(
    "--keys",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Directory of NAME.masterkey and NAME.crt.",
)
@click.option(
    "--days",
    type=click.IntRange(min=1),
    default=WHITELIST_VALIDITY.days,
    show_default=True,
    help="How long clients accept it.",
)
@click.option(
    "--hash",
    "hash_",
    type=click.Choice([algorithm.label for algorithm in HashAlgorithm]),
    default=HashAlgorithm.SHA1.label,
    show_default=True,
    help="As the repository was created with.",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write.")
def sign_whitelist_file(*, name: str, keys: Path, days: int, hash_: str, output: Path) -> None:
    """Sign a whitelist where the master key is, to be installed by `resign --whitelist` where the repository is."""
    repository = RepositoryName(name)
    content = sign_whitelist(
        *KeyFiles(keys, repository).load_master(),
        repository,
        algorithm=HashAlgorithm[hash_.upper()],
        validity=timedelta(days=days),
        now=datetime.now(UTC),
    )
    try:
        output.write_bytes(content)
    except OSError as error:
        raise StorageError(f"cannot write {output}: {error.strerror}") from None
    write_output(f"{output}: install it with thin-repository resign {repository} --whitelist {output}\n")
