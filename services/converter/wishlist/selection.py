"""From wishes and what registries have to names of images: pure functions, so that a plan and a round come to the same.

A round lists the tags of a repository where `needs_tags` says so, asks for creation times of the `candidates` where
`needs_creation` says so, and `choose`s. `settle` decides where several wishes name one image.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.repository_name import RepositoryName
from services.converter.model import ChosenTags, ExactDigest, ExactTag, SignaturePolicy, TagSelection, Wish
from services.converter.provenance.applying import applicable
from services.converter.wishlist.globs import glob_matches, is_glob, matches_any
from services.converter.wishlist.versions import Version, VersionRange

__all__ = [
    "Wanted",
    "candidates",
    "choose",
    "exact_name",
    "image_name",
    "needs_creation",
    "needs_tags",
    "settle",
]

_ATTACHMENT = re.compile(r"sha256-[0-9a-f]{64}(?:\..*)?")
"""Tags under which cosign and others keep signatures and the like; no images."""
_NO_DATE: Final = datetime.min.replace(tzinfo=UTC)


def needs_tags(selection: TagSelection) -> bool:
    """Whether the tags of the repository must be listed."""
    return isinstance(selection, ChosenTags)


def needs_creation(selection: TagSelection) -> bool:
    """Whether `choose` needs the creation times of the candidates."""
    return isinstance(selection, ChosenTags) and (
        selection.max_age is not None or (selection.newest is not None and selection.newest_by == "created")
    )


def image_name(wish: Wish, tag: str) -> ImageName:
    """Return the name of a wish's image with a tag that its registry has."""
    return ImageName(f"{wish.registry}/{wish.repository}:{tag}")


def exact_name(wish: Wish) -> tuple[ImageName, Digest | None] | None:
    """Return the one image that a wish names and the digest it must have; None where the tags decide."""
    match wish.tags:
        case ExactTag(tag):
            return image_name(wish, tag), None
        case ExactDigest(digest, None):
            return ImageName(f"{wish.registry}/{wish.repository}@{digest.oci}"), digest
        case ExactDigest(digest, str(tag)):
            return image_name(wish, tag), digest
        case _:
            return None


def candidates(selection: ChosenTags, tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags that pass by their names alone: globs, exclusions, versions; in the registry's order.

    Tags of signatures and other attachments (`sha256-...`) pass only where a pattern without wildcards names them.
    """
    wanted = None if selection.versions is None else VersionRange(selection.versions)
    by_version = selection.newest is not None and selection.newest_by == "version"
    return tuple(
        tag
        for tag in dict.fromkeys(tags)
        if _included(selection, tag)
        and not matches_any(selection.exclude, tag)
        and _version_fits(tag, wanted, needed=by_version)
    )


def _included(selection: ChosenTags, tag: str) -> bool:
    if _ATTACHMENT.fullmatch(tag):
        return any(not is_glob(pattern) and pattern == tag for pattern in selection.include)
    return any(glob_matches(pattern, tag) for pattern in selection.include)


def _version_fits(tag: str, wanted: VersionRange | None, *, needed: bool) -> bool:
    if wanted is None and not needed:
        return True
    version = Version.parse(tag)
    return version is not None and (wanted is None or wanted.contains(version))


def choose(
    selection: ChosenTags, tags: Sequence[str], *, created: Mapping[str, datetime | None], now: datetime
) -> tuple[str, ...]:
    """Return the tags that pass everything.

    Parameters
    ----------
    selection
        What is asked for.
    tags
        The `candidates`.
    created
        When each candidate's image was made, where `needs_creation` says so; None for one that does not tell, which is
        as old as can be. All must be there: what could not be asked for is not old.
    now
        The present time, with its zone.

    Raises
    ------
    KeyError
        A creation time that is needed is not there.
    """
    chosen = list(tags)
    if selection.max_age is not None:
        oldest = now - timedelta(seconds=selection.max_age)
        chosen = [tag for tag in chosen if (created[tag] or _NO_DATE) >= oldest]
    if selection.newest is not None and selection.newest_by == "created":
        # The names decide between equals, so that two rounds choose the same.
        chosen.sort(key=lambda tag: (created[tag] or _NO_DATE, tag), reverse=True)
        chosen = chosen[: selection.newest]
    elif selection.newest is not None:
        versions = {tag: version for tag in chosen if (version := Version.parse(tag)) is not None}
        chosen = sorted(versions, key=lambda tag: (versions[tag], tag), reverse=True)[: selection.newest]
    return tuple(chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An image that a repository should have, by the wish that decides about it."""

    name: ImageName
    repository: RepositoryName
    digest: Digest | None
    """The digest that the wish names; None where the tag decides."""
    wish: Wish
    others: tuple[Wish, ...] = ()
    """Further wishes for it, which decide nothing but that their signature policies apply too."""

    def policies(self, known: Iterable[SignaturePolicy]) -> tuple[SignaturePolicy, ...]:
        """Return the signature policies that apply, all of which must be satisfied.

        Parameters
        ----------
        known
            Those of all lists. Besides those whose patterns match, the ones apply that any of the wishes names.
        """
        return applicable(self.name, (self.wish, *self.others), known)


def settle(
    found: Iterable[tuple[Wish, ImageName, Digest | None]],
) -> dict[tuple[RepositoryName, ImageName], Wanted]:
    """Decide which wish counts where several name one image: the highest priority, then the one that comes first.

    Parameters
    ----------
    found
        Every wish with each image it comes to and the digest it names, in the order of the lists.
    """
    wanted: dict[tuple[RepositoryName, ImageName], Wanted] = {}
    for wish, name, digest in sorted(found, key=lambda each: -each[0].priority):
        for repository in wish.repositories:
            first = wanted.get((repository, name))
            if first is None:
                wanted[repository, name] = Wanted(name=name, repository=repository, digest=digest, wish=wish)
            else:
                wanted[repository, name] = replace(first, others=(*first.others, wish))
    return wanted
