"""`converter verify`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from pydantic import JsonValue

from services.common.command_line import run_async, write_document, write_output
from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.converter.commands.options import JSON, LISTS, load
from services.converter.errors import SourceUnreachableError, WishListError
from services.converter.model import SignaturePolicy
from services.converter.provenance.applying import applicable
from services.converter.provenance.verifier import Verifier
from services.converter.wishlist.sources.once import Loaded
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference
from services.registry.settings import RegistrySettings

__all__ = ["verify", "verify_image"]


@click.command(epilog="Example: converter verify quay.io/ns/tool:v1 wishes.yaml")
@click.argument("image", metavar="IMAGE")
@LISTS
@click.option("--policy", "names", multiple=True, help="A policy that applies besides those whose patterns match.")
@JSON
def verify(
    image: str,
    places: tuple[str, ...],
    *,
    ca_file: Path | None,
    credentials: Path | None,
    names: tuple[str, ...],
    as_json: bool,
) -> None:
    """Verify that an image is signed as the policies of wish lists want it. Nothing is changed anywhere.

    Registries are spoken to as REGISTRY_* variables say.
    """
    name = ImageName(image)
    loaded = run_async(load(places, ca_file, credentials))
    document = run_async(verify_image(name, loaded, names))
    if as_json:
        write_document(document)
        return
    write_output("".join(f"{key}: {value}\n" for policy in document for key, value in policy.items()))


async def verify_image(name: ImageName, loaded: Sequence[Loaded], names: Sequence[str]) -> list[dict[str, JsonValue]]:
    """Return what an image satisfies the policies of wish lists by, policy by policy.

    Parameters
    ----------
    name
        The image.
    loaded
        The wish lists.
    names
        Policies that apply besides those whose patterns match.

    Raises
    ------
    InvalidValueError
        No policy applies, or there is none of a name.
    ConverterError
        A list cannot be used.
    ProvenanceError
        The image does not satisfy a policy.
    RegistryError
        It cannot be found out what the image is.
    """
    policies = _applying(name, _known(loaded), names)
    reference = ImageReference.parse(name)
    async with RegistryClient(options=RegistrySettings.load().options()) as client:
        digest = reference.digest or (await client.head(reference)).digest
        return [await _verify(client, reference, digest, policy) for policy in policies]


async def _verify(
    client: RegistryClient, reference: ImageReference, digest: Digest, policy: SignaturePolicy
) -> dict[str, JsonValue]:
    verified = await Verifier().verify(client, replace(reference, digest=digest), digest, policy)
    return verified.document()


def _known(loaded: Sequence[Loaded]) -> list[SignaturePolicy]:
    policies: list[SignaturePolicy] = []
    for each in loaded:
        if each.trouble is not None:
            raise SourceUnreachableError(each.trouble)
        if each.wish_list is None:
            raise WishListError(f"nothing of {each.source} can be used, `converter check` says why")
        policies += each.wish_list.policies
    return policies


def _applying(name: ImageName, known: Sequence[SignaturePolicy], names: Sequence[str]) -> list[SignaturePolicy]:
    there = {policy.name for policy in known}
    missing = [each for each in names if each not in there]
    if missing:
        raise InvalidValueError(f"the lists have no policy {missing[0]!r} but {', '.join(sorted(there)) or 'none'}")
    matching = applicable(name, (), known)
    policies = [policy for policy in known if policy in matching or policy.name in names]
    if not policies:
        raise InvalidValueError(f"no policy of the lists applies to {name} by its patterns: name one with --policy")
    return policies
