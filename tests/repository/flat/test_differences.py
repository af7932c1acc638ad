"""What the report of a flat image names."""

import dataclasses

import pytest

from services.repository.flat.differences import Difference, DifferenceReport, Differences, DirectoryAttributes

IMPLIED = DirectoryAttributes(permissions=0o755, uid=0, gid=0, mtime=0, has_xattrs=False)
CHANGES = [{"permissions": 0o700}, {"uid": 1}, {"gid": 1}, {"has_xattrs": True}]


@pytest.fixture
def differences() -> Differences:
    return Differences()


def test_a_directory_without_an_entry_hides_a_link(differences: Differences) -> None:
    differences.hides_link(b"lib", IMPLIED)
    differences.hides_link(b"usr/lib", dataclasses.replace(IMPLIED, mtime=1))
    assert differences.report() == {Difference.HIDDEN_LINK: DifferenceReport(count=1, first=("'lib'",))}


@pytest.mark.parametrize("change", CHANGES)
def test_a_directory_without_an_entry_loses_what_layers_below_said_of_it(
    differences: Differences, change: dict[str, int]
) -> None:
    below = dataclasses.replace(IMPLIED, mtime=7, **change)  # type: ignore[arg-type] # Hypothetical attributes
    differences.hides_directory(b"root", IMPLIED, below)
    assert differences.report() == {Difference.IMPLIED_DIRECTORY: DifferenceReport(count=1, first=("'root'",))}


def test_what_is_the_same_either_way_is_not_named(differences: Differences) -> None:
    differences.hides_directory(b"a", IMPLIED, dataclasses.replace(IMPLIED, mtime=7))
    for change in [*CHANGES, {"mtime": 1}]:
        entry = dataclasses.replace(IMPLIED, **change)  # type: ignore[arg-type] # as above
        differences.hides_directory(b"b", entry, dataclasses.replace(IMPLIED, permissions=0o700))
        differences.hides_link(b"c", entry)
    assert differences.report() == {}


@pytest.mark.parametrize(
    ("target", "expanded"),
    [
        (b"$(HOME)/x", True),
        (b"a$(X:-y)b", True),
        (b"$()", True),
        (b"$(HOME", False),
        (b"$HOME", False),
        (b"${HOME}", False),
        (b"usr/lib", False),
    ],
)
def test_links_that_clients_expand_are_named(differences: Differences, target: bytes, *, expanded: bool) -> None:
    differences.link(b"link", target)
    assert (Difference.VARIANT_LINK in differences.report()) == expanded


def test_much_is_counted_and_little_of_it_kept(differences: Differences) -> None:
    for number in range(1000):
        differences.add(Difference.DROPPED_NAME, b"\xff%d" % number)
    differences.variables(["A-B"])
    assert differences.report() == {
        Difference.DROPPED_NAME: DifferenceReport(count=1000, first=tuple(f"'\\xff{number}'" for number in range(20))),
        Difference.LEFT_OUT_VARIABLE: DifferenceReport(count=1, first=("'A-B'",)),
    }
