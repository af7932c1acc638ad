"""What one entry of a wish list of version 2 comes to, beside the list's defaults and policies."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from services.common.errors import InvalidValueError
from services.common.image_outputs import ImageOutputs
from services.common.repository_name import RepositoryName
from services.converter.model import (
    DEFAULT_PLATFORMS,
    DEFAULT_RETENTION,
    ChosenTags,
    ExactDigest,
    ExactTag,
    Origin,
    Retention,
    SignaturePolicy,
    TagSelection,
    ThinTarget,
    Wish,
)
from services.converter.wishlist.globs import check_glob, is_glob
from services.converter.wishlist.grammar import Defaults, ImageEntry, RetentionEntry, ThinEntry
from services.converter.wishlist.names import WishedName
from services.converter.wishlist.output_names import output_name
from services.converter.wishlist.problems import nearest
from services.converter.wishlist.selection import exact_name
from services.registry.platform import Platform

__all__ = ["WrongEntryError", "wishes_of"]

_SELECTING: Final = ("tags", "exclude", "versions", "max_age", "newest", "newest_by")
"""Keys that choose tags."""


class WrongEntryError(InvalidValueError):
    """A value of an entry does not fit the others.

    Parameters
    ----------
    key
        Key of the value.
    text
        What is wrong, and the remedy.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def wishes_of(
    entry: ImageEntry, defaults: Defaults, policies: Mapping[str, SignaturePolicy], origin: Origin
) -> list[Wish]:
    """Return what an entry wishes.

    Parameters
    ----------
    entry
        The entry.
    defaults
        What counts where it says nothing.
    policies
        Those of the list, by name.
    origin
        Where the entry is written.

    Raises
    ------
    WrongEntryError
        Its values do not fit one another, or the list.
    InvalidValueError
        Its `image` is none.
    """
    options = _Options(entry, defaults)
    name = WishedName.parse(entry.image)
    repositories = options.repositories
    thin = tuple(_thin(each, repositories) for each in options.thin)
    named = tuple(_policy(each, policies) for each in options.policies)
    wishes = [
        Wish(
            registry=name.registry,
            repository=name.repository,
            tags=selection,
            repositories=repositories,
            platforms=options.platforms,
            thin=thin,
            outputs=options.outputs,
            policies=named,
            retention=options.retention,
            interval=options.interval,
            priority=options.priority,
            may_fail=options.may_fail,
            scheme=name.scheme,
            origin=origin,
        )
        for selection in _selections(name, entry)
    ]
    for wish in wishes:
        _check_thin_names(wish, entry)
    return wishes


class _Options:
    """What counts for one entry: its own words, then the defaults', then what is usual."""

    def __init__(self, entry: ImageEntry, defaults: Defaults) -> None:
        self._entry = entry
        self._defaults = defaults

    def _saying(self, name: str) -> Defaults:
        """Return who says something about an option; the entry has all that defaults have."""
        return self._entry if name in self._entry.model_fields_set else self._defaults

    def _keeping(self, name: str) -> RetentionEntry | Retention:
        for said in (self._entry.retention, self._defaults.retention):
            if name in said.model_fields_set:
                return said
        return DEFAULT_RETENTION

    @property
    def repositories(self) -> tuple[RepositoryName, ...]:
        names = self._saying("repositories").repositories
        if not names:
            raise WrongEntryError("image", "no CVMFS repository: give 'repositories' here or in 'defaults'")
        return tuple(dict.fromkeys(map(RepositoryName, names)))

    @property
    def platforms(self) -> tuple[Platform, ...]:
        return tuple(dict.fromkeys(map(Platform.parse, self._saying("platforms").platforms))) or DEFAULT_PLATFORMS

    @property
    def thin(self) -> tuple[ThinEntry, ...]:
        return self._saying("thin").thin

    @property
    def outputs(self) -> ImageOutputs:
        return self._saying("outputs").outputs.chosen()

    @property
    def policies(self) -> tuple[str, ...]:
        return self._saying("policies").policies

    @property
    def retention(self) -> Retention:
        return Retention(
            replaced=self._keeping("replaced").replaced,
            dropped=self._keeping("dropped").dropped,
            gone=self._keeping("gone").gone,
        )

    @property
    def interval(self) -> float | None:
        return self._saying("interval").interval

    @property
    def priority(self) -> int:
        return self._saying("priority").priority

    @property
    def may_fail(self) -> bool:
        return self._saying("may_fail").may_fail


def _selections(name: WishedName, entry: ImageEntry) -> tuple[TagSelection, ...]:
    """Return what an entry chooses: tags that are written out need no list of tags, hence each a wish of its own."""
    given = [key for key in _SELECTING if key in entry.model_fields_set]
    if "newest_by" in given and entry.newest is None:
        raise WrongEntryError("newest_by", "'newest_by' without 'newest': say how many")
    exact = _exact(name)
    if exact is not None and given:
        raise WrongEntryError(given[0], f"{given[0]!r}, but the image names one tag or digest: leave one of them out")
    if exact is not None:
        return (exact,)
    if name.tag is not None and "tags" in given:
        raise WrongEntryError("tags", "'tags', but the image has a pattern of tags already: leave one of them out")
    if name.tag is None and not given:
        raise InvalidValueError(
            f"neither tag nor digest: write {name.registry}/{name.repository}:latest, or 'tags: \"*\"' for all"
        )
    include = entry.tags if name.tag is None else (check_glob(name.tag),)
    if given == ["tags"] and not any(map(is_glob, include)):
        _check_tags(name, include)
        return tuple(ExactTag(tag) for tag in dict.fromkeys(include))
    return (
        ChosenTags(
            include=include,
            exclude=entry.exclude,
            versions=entry.versions,
            max_age=entry.max_age,
            newest=entry.newest,
            newest_by=entry.newest_by,
        ),
    )


def _check_tags(name: WishedName, tags: tuple[str, ...]) -> None:
    try:
        for tag in tags:
            replace(name, tag=tag).check_tag()
    except InvalidValueError as error:
        raise WrongEntryError("tags", str(error)) from None


def _exact(name: WishedName) -> ExactTag | ExactDigest | None:
    if name.digest is not None:
        name.check_tag()
        return ExactDigest(name.digest, name.tag)
    if name.tag is None or is_glob(name.tag):
        return None
    name.check_tag()
    return ExactTag(name.tag)


def _thin(entry: ThinEntry, repositories: tuple[RepositoryName, ...]) -> ThinTarget:
    repository = repositories[0] if entry.repository is None else RepositoryName(entry.repository)
    if repository not in repositories:
        there = ", ".join(repositories)
        raise WrongEntryError("thin", f"a thin image of {repository}, which is not among {there}: write one of these")
    return ThinTarget(template=entry.push, repository=repository, layout=entry.layout)


def _check_thin_names(wish: Wish, entry: ImageEntry) -> None:
    # A template that is right has a name for every tag; a digest may be missing one.
    if not wish.thin or not isinstance(wish.tags, ExactDigest) or (named := exact_name(wish)) is None:
        return
    try:
        for target in wish.thin:
            output_name(target.template, wish, *named)
    except InvalidValueError as error:
        at = "thin" if "thin" in entry.model_fields_set else "image"
        raise WrongEntryError(at, f"{error}; 'thin: []' for none") from None


def _policy(name: str, policies: Mapping[str, SignaturePolicy]) -> SignaturePolicy:
    if name not in policies:
        raise WrongEntryError("policies", f"no such policy: {name!r}: {nearest(name, policies)}")
    return policies[name]
