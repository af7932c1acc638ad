"""The wishes that count now, and which of them decides about an image that several wish."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.converter.model import Hint, SignaturePolicy, Wish, WishList
from services.converter.state.model import Want
from services.registry.reference import ImageReference

__all__ = ["Plan", "Planned"]


@dataclass(slots=True, kw_only=True, eq=False)
class Planned:
    """A wish, and what its polls came to in this process."""

    key: str
    """What it is known by from one reading of its list to the next, and from one process to the next."""
    wish: Wish
    rank: tuple[int, int]
    """Its place among the wishes: the smaller one decides."""
    reference: ImageReference
    """Its repository in the registry."""
    images: Mapping[ImageName, Digest | None] = field(default_factory=dict)
    """The images that it came to last, with the digests that it names."""
    polled: float | None = None
    """When that was, by the steady clock; None if it has not been polled in this process."""

    @property
    def fingerprint(self) -> str:
        """What else of the wish decides how its images are published; another one has all of them asked for anew."""
        wish = self.wish
        parts = (wish.platforms, wish.thin, wish.outputs, wish.policies, wish.retention, wish.priority)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class Plan:
    """The wishes of all lists."""

    def __init__(self) -> None:
        self._planned: dict[str, Planned] = {}
        self._places: dict[tuple[str, str], list[Planned]] = {}
        self._policies: tuple[SignaturePolicy, ...] = ()
        self.whole: frozenset[str] = frozenset()
        """The lists that were read from beginning to end."""
        self.incomplete: frozenset[str] = frozenset()
        """The others: nothing follows from what they do not wish."""

    def replace(self, lists: Sequence[WishList]) -> list[Planned]:
        """Take the lists as they are now; return the wishes that are new or have changed."""
        planned: dict[str, Planned] = {}
        new: list[Planned] = []
        for number, wish in enumerate(wish for each in lists for wish in each.wishes):
            key = _key(wish)
            if key in planned:
                continue  # the same again, in whatever list
            former = self._planned.get(key)
            made = Planned(
                key=key,
                wish=wish,
                rank=(-wish.priority, number),
                reference=_reference(wish),
                images={} if former is None else former.images,
                polled=None if former is None else former.polled,
            )
            planned[key] = made
            if former is None or former.fingerprint != made.fingerprint:
                new.append(made)
        self._planned = planned
        self._policies = tuple(policy for each in lists for policy in each.policies)
        self.whole = frozenset(each.source for each in lists if each.complete)
        self.incomplete = frozenset(each.source for each in lists if not each.complete)
        places = defaultdict(list)
        for each in sorted(planned.values(), key=lambda each: each.rank):
            places[_place(each.reference)].append(each)
        self._places = dict(places)
        return new

    def every(self) -> Iterable[Planned]:
        """Return all wishes."""
        return self._planned.values()

    def get(self, key: str) -> Planned | None:
        """Return the wish with a key, if it still counts."""
        return self._planned.get(key)

    def beside(self, planned: Planned) -> Sequence[Planned]:
        """Return the wishes for the same repository of a registry, that one among them."""
        return self._places.get(_place(planned.reference), ())

    def hinted(self, hint: Hint) -> Sequence[Planned]:
        """Return the wishes for the repository that a hint is about, whatever its registry is called there."""
        try:
            reference = ImageReference.parse(f"{hint.registry}/{hint.repository}")
        except InvalidValueError:
            return ()
        return self._places.get(_place(reference), ())

    def naming(self, name: ImageName) -> Sequence[Planned]:
        """Return the wishes for the repository of a registry that an image is in."""
        reference = ImageReference.parse(f"{name.registry}/{name.repository}")
        return self._places.get(_place(reference), ())

    def decided_by(self, planned: Planned, name: ImageName | None) -> list[Want]:
        """Return the CVMFS repositories in which a wish decides about an image, as none above it wishes that."""
        taken = {
            repository
            for other in self.beside(planned)
            if other.rank < planned.rank and name in other.images
            for repository in other.wish.repositories
        }
        return [
            Want(
                repository=repository,
                wish=planned.key,
                source=planned.wish.origin.source,
                retention=planned.wish.retention,
            )
            for repository in planned.wish.repositories
            if repository not in taken
        ]

    def wishing(self, planned: Planned, name: ImageName) -> list[Wish]:
        """Return all wishes for an image: each one's signature policies apply, so that none weakens another."""
        return [other.wish for other in self.beside(planned) if name in other.images or other is planned]

    def matches(self, hint: Hint) -> bool:
        """Whether a wish may be about what a hint is about."""
        return bool(self.hinted(hint))

    @property
    def policies(self) -> tuple[SignaturePolicy, ...]:
        """The signature policies of all lists."""
        return self._policies


def _key(wish: Wish) -> str:
    parts = (wish.origin.source, wish.registry, wish.repository, wish.tags, wish.repositories)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _reference(wish: Wish) -> ImageReference:
    return ImageReference.parse(f"{wish.registry}/{wish.repository}")


def _place(reference: ImageReference) -> tuple[str, str]:
    return reference.authority.lower(), reference.repository
