"""DUCC's wish lists ("recipe v1"), taken as they are.

Keys: `version`, `user` (pushes the thin images), `cvmfs_repo`, `output_format` (template of thin images' names),
`input` (images), `ignoreErrors` (shell patterns of images whose failure does not fail a run). Differences to DUCC, all
of them where DUCC crashes, loses something or converts by accident:

- An entry without tag and digest, or that is no image, is an error with its place; the others are taken.
- A `*` in a tag matches anything and everything else stands for itself. DUCC makes a regular expression of it and
  escapes nothing, so that its `.` matches any character, which nobody means. `[...]` is a set of characters in both.
  Other signs of regular expressions are refused, since they would be something else here than there.
- All pages of tags are read, where DUCC reads the first.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from services.common.errors import InvalidValueError
from services.common.image_outputs import ImageOutputs
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.converter.model import ChosenTags, ExactDigest, ExactTag, Origin, TagSelection, ThinTarget, Wish, WishList
from services.converter.wishlist.globs import check_glob, path_glob_matches
from services.converter.wishlist.names import WishedName
from services.converter.wishlist.output_names import DEFAULT_TEMPLATE, check_template, output_name
from services.converter.wishlist.problems import Problem, Reading, Severity, nearest
from services.converter.wishlist.selection import exact_name
from services.converter.wishlist.tree import Mapping, Node, Scalar, Sequence

__all__ = ["is_recipe", "read_recipe"]

_KEYS: Final = ("version", "user", "cvmfs_repo", "output_format", "input", "ignoreErrors")
_FOREIGN_SIGNS: Final = frozenset("?+(){}|^$\\")
"""Signs of regular expressions that cannot be in tags, and that globs do not have with the same meaning."""


def is_recipe(document: Mapping) -> bool:
    """Whether a document is one of DUCC's, which never looks at the version."""
    return "input" in document.entries or _text_of(document, "version") == "1"


def read_recipe(document: Mapping, source: str, *, outputs: ImageOutputs) -> Reading:
    """Read a recipe; every error in it is told, and what has none is taken.

    Parameters
    ----------
    document
        The whole.
    source
        File or URL, for places.
    outputs
        In which further ways repositories show its images: DUCC has command line flags for that.
    """
    return _Reader(document, source, outputs).read()


def _text_of(document: Mapping, key: str) -> str | None:
    node = document.entries[key][1] if key in document.entries else None
    return node.value if isinstance(node, Scalar) else None


class _Reader:
    def __init__(self, document: Mapping, source: str, outputs: ImageOutputs) -> None:
        self._document = document
        self._source = source
        self._outputs = outputs
        self._problems: list[Problem] = []

    def read(self) -> Reading:
        self._check_keys()
        repository = self._repository()
        entries = list(self._texts("input"))
        if "input" not in self._document.entries:
            self._error(self._document.origin, "the key 'input' is missing: it lists the images")
        failing = tuple(self._patterns())
        if repository is None:
            return Reading(None, tuple(sorted(self._problems, key=lambda problem: problem.origin)))
        thin = self._thin(repository)
        wishes: dict[tuple[str, str, TagSelection], Wish] = {}
        for origin, text in entries:
            wish = self._wish(origin, text, repository, thin, failing)
            if wish is None:
                continue
            first = wishes.setdefault((wish.registry, wish.repository, wish.tags), wish)
            if first is not wish:
                self._warning(origin, f"{text} a second time (first in line {first.origin.line}): remove one")
        problems = tuple(sorted(self._problems, key=lambda problem: problem.origin))
        complete = not any(problem.severity is Severity.ERROR for problem in problems)
        return Reading(WishList(source=self._source, wishes=tuple(wishes.values()), complete=complete), problems)

    def _error(self, origin: Origin, text: str) -> None:
        self._problems.append(Problem(origin, Severity.ERROR, text))

    def _warning(self, origin: Origin, text: str) -> None:
        self._problems.append(Problem(origin, Severity.WARNING, text))

    def _check_keys(self) -> None:
        for key, (origin, _) in self._document.entries.items():
            if key not in _KEYS:
                self._warning(origin, f"unknown key {key[:80]!r}, which DUCC ignores: {nearest(key, _KEYS)}")
        if "version" in self._document.entries and _text_of(self._document, "version") != "1":
            self._warning(self._place("version"), "DUCC's wish lists are of version 1: this is read as one")

    def _place(self, key: str) -> Origin:
        return self._document.entries[key][1].origin if key in self._document.entries else self._document.origin

    def _repository(self) -> RepositoryName | None:
        text = _text_of(self._document, "cvmfs_repo")
        if text is None:
            self._error(self._place("cvmfs_repo"), "the key 'cvmfs_repo' is missing: it names the CVMFS repository")
            return None
        try:
            return RepositoryName(text)
        except InvalidValueError as error:
            self._error(self._place("cvmfs_repo"), str(error))
            return None

    def _thin(self, repository: RepositoryName) -> ThinTarget | None:
        template = _text_of(self._document, "output_format") or DEFAULT_TEMPLATE
        user = _text_of(self._document, "user")
        try:
            check_template(template)
        except InvalidValueError as error:
            self._error(self._place("output_format"), f"no thin images are made: {error}")
            return None
        return ThinTarget(template=template, repository=repository, layout=LayerLayout.DUCC, user=user)

    def _texts(self, key: str) -> Iterator[tuple[Origin, str]]:
        node: Node | None = self._document.entries[key][1] if key in self._document.entries else None
        if node is None or (isinstance(node, Scalar) and node.value is None):
            return
        if not isinstance(node, Sequence):
            self._error(node.origin, f"{key!r} is a list: write each entry on a line of its own, after '- '")
            return
        for item in node.items:
            if isinstance(item, Scalar) and item.value is not None:
                yield item.origin, item.value.strip()
            else:
                self._error(item.origin, f"an entry of {key!r} is a text: quote it if it has ': ' or '#' in it")

    def _patterns(self) -> Iterator[str]:
        for origin, text in self._texts("ignoreErrors"):
            try:
                yield check_glob(text)
            except InvalidValueError as error:
                self._error(origin, str(error))

    def _wish(
        self,
        origin: Origin,
        text: str,
        repository: RepositoryName,
        thin: ThinTarget | None,
        failing: tuple[str, ...],
    ) -> Wish | None:
        try:
            name = WishedName.parse(text)
            tags = self._selection(name)
        except InvalidValueError as error:
            self._error(origin, str(error))
            return None
        wish = Wish(
            registry=name.registry,
            repository=name.repository,
            tags=tags,
            repositories=(repository,),
            may_fail=any(_fails(pattern, name) for pattern in failing),
            thin=() if thin is None else (thin,),
            outputs=self._outputs,
            scheme=name.scheme,
            origin=origin,
        )
        return self._with_possible_thin(wish)

    def _with_possible_thin(self, wish: Wish) -> Wish:
        # A template that is right has a name for every tag; a digest may be missing one.
        if not wish.thin or not isinstance(wish.tags, ExactDigest) or (named := exact_name(wish)) is None:
            return wish
        try:
            output_name(wish.thin[0].template, wish, *named)
        except InvalidValueError as error:
            self._warning(wish.origin, f"no thin image is made: {error}")
            return replace(wish, thin=())
        return wish

    def _selection(self, name: WishedName) -> TagSelection:
        if name.tag is not None and "*" in name.tag:
            foreign = sorted(_FOREIGN_SIGNS.intersection(name.tag))
            if foreign:
                raise InvalidValueError(
                    f"{' '.join(foreign)} in the pattern {name.tag[:140]!r}: of a tag's pattern, '*' and sets such as "
                    "[0-9] are taken; write several entries, or a list of version 2"
                )
            if name.digest is not None:
                raise InvalidValueError(
                    f"a pattern and a digest together: leave one of them out of {name.whole[:300]!r}"
                )
            return ChosenTags(include=(check_glob(name.tag),))
        name.check_tag()
        if name.digest is not None:
            return ExactDigest(name.digest, name.tag)
        if name.tag is None:
            raise InvalidValueError(
                f"neither tag nor digest: write {name.registry}/{name.repository}:latest, or whichever tag is meant"
            )
        return ExactTag(name.tag)


def _fails(pattern: str, name: WishedName) -> bool:
    return path_glob_matches(pattern, name.whole) or path_glob_matches(pattern, name.whole.partition("://")[2])
