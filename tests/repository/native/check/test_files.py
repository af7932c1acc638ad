# ruff: noqa: S608 - the statements are these tests' own
"""Damage to the files of a repository: signatures, objects, tag database, reference log."""

import hashlib
import zlib
from datetime import UTC, datetime

import pytest

from services.repository.native.check.checker import Checker
from services.repository.native.errors import StorageError
from services.repository.native.reader.errors import UntrustedError
from services.repository.native.reader.source import HttpSource
from services.repository.native.storage.directory import DirectoryStorage
from tests.repository.native.check.conftest import Defects
from tests.support.forgery import ROOT_CATALOG, Forgery, forged_key
from tests.support.golden import GOLDEN, GOLDEN_KEY, GOLDEN_NAME

_NESTED2 = "90c039b1c108cf271a49a8a7fbd5b70ebb0c3318"
"""Catalog of /nested1/deep/nested2."""
_EMPTY = "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"
_SMALL = "2f97a78b56180e0e2e91183fca93ae8aa1f41bf1"
"""Object of /files/small.txt."""
_RAW = "/uncompressed/raw"


def _name(stored: bytes | bytearray) -> str:
    return hashlib.sha1(stored, usedforsecurity=False).hexdigest()


def test_what_the_real_server_wrote_is_whole() -> None:
    report = Checker(DirectoryStorage(GOLDEN), name=GOLDEN_NAME, master_keys=[GOLDEN_KEY]).run()
    assert report.problems == ()
    assert (report.revision, report.revisions, report.catalogs, report.entries) == (7, 3, 11, 407)
    assert report.objects == 93


def test_a_forgery_without_damage_is_whole(forgery: Forgery, defects: Defects) -> None:
    forgery.seal()
    assert defects(forgery) == []


def test_a_missing_object_is_told_once_with_the_first_path(forgery: Forgery, defects: Defects) -> None:
    forgery.seal()
    forgery.object(_EMPTY).unlink()
    assert defects(forgery) == [f"/dirtab/v0/.cvmfscatalog: its object data/e8/{_EMPTY[2:]} is missing"]


def test_a_missing_object_is_found_without_reading_any(forgery: Forgery) -> None:
    forgery.seal()
    forgery.object(_EMPTY).unlink()
    flipped = forgery.object(_SMALL)
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"?")
    checker = Checker(DirectoryStorage(forgery.root), name=GOLDEN_NAME, master_keys=[forged_key()], content=False)
    assert [problem.what for problem in checker.run().problems] == [f"its object data/e8/{_EMPTY[2:]} is missing"]


@pytest.mark.parametrize("position", [0, 10, -1])
def test_a_flipped_bit_is_told(forgery: Forgery, defects: Defects, position: int) -> None:
    forgery.seal()
    path = forgery.object(_SMALL)
    stored = bytearray(path.read_bytes())
    stored[position] ^= 1
    path.write_bytes(stored)
    where = f"data/2f/{_SMALL[2:]}"
    assert defects(forgery) == [
        f"/files/small.txt: its object {where} has been changed: its bytes have the hash {_name(stored)}"
    ]


def test_an_object_that_is_cut_off_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.seal()
    path = forgery.object(_SMALL)
    path.write_bytes(path.read_bytes()[:12])
    (defect,) = defects(forgery)
    assert defect.startswith(f"/files/small.txt: its object data/2f/{_SMALL[2:]} has been changed")


def test_a_chunk_is_read_too(forgery: Forgery, defects: Defects) -> None:
    forgery.seal()
    chunk = min((forgery.root / "data").glob("*/*P"))
    chunk.unlink()
    assert defects(forgery) == [
        f"/chunked/random: its object {chunk.relative_to(forgery.root)} is missing",
    ]


@pytest.mark.parametrize(
    ("stored", "defect"),
    [
        (b"no zlib at all", "is no zlib stream: Error -3 while decompressing data: incorrect header check"),
        (zlib.compress(b"x" * 21)[:-5], "ends within its zlib stream"),
        (zlib.compress(b"x" * 21) + b"?", "goes on after the end of its zlib stream"),
        (zlib.compress(b"x" * 20), "holds 20 bytes instead of 21"),
        (zlib.compress(bytes(50 << 20)), "holds more than 21 bytes"),
    ],
)
def test_an_object_of_the_wrong_form_is_told(forgery: Forgery, defects: Defects, stored: bytes, defect: str) -> None:
    name = _name(stored)
    forgery.object(name).parent.mkdir(exist_ok=True)
    forgery.object(name).write_bytes(stored)
    forgery.edit("", f"UPDATE catalog SET hash = x'{name}' WHERE name = 'small.txt'")
    forgery.seal()
    assert defects(forgery) == [f"/files/small.txt: its object data/{name[:2]}/{name[2:]} {defect}"]


def test_a_catalog_that_is_missing_or_damaged_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.seal()
    path = forgery.object(_NESTED2, "C")
    content = path.read_bytes()
    path.unlink()
    where = f"data/90/{_NESTED2[2:]}C"
    assert defects(forgery) == [f"/nested1/deep/nested2: its catalog {where} is missing"]
    path.write_bytes(content[:-1] + b"?")
    (defect,) = defects(forgery)
    assert defect.startswith(f"/nested1/deep/nested2: its catalog: {where} has been changed: its bytes have the hash")


def test_a_catalog_in_wal_mode_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.rewrite("/ingested", lambda database: database[:18] + b"\2\2" + database[20:])
    forgery.seal()
    (defect,) = defects(forgery)
    assert defect.endswith("C is in WAL mode, which makes clients abort")
    assert defect.startswith("/ingested: its catalog: data/")


def test_a_catalog_that_is_no_database_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.rewrite("/ingested", lambda _database: b"nothing of the kind")
    forgery.seal()
    (defect,) = defects(forgery)
    assert defect.endswith("C is no SQLite file")


def test_a_catalog_with_a_damaged_page_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.rewrite("/ingested", lambda database: database[:1024] + bytes(4096) + database[5120:])
    forgery.seal()
    defect, *_ = defects(forgery)
    assert "is no sound SQLite file" in defect


def test_the_manifest_states_the_size_of_the_root_catalog(forgery: Forgery, defects: Defects) -> None:
    forgery.fields["B"] = "1024"
    forgery.seal()
    assert defects(forgery) == [".cvmfspublished: says that its root catalog has 1024 bytes, which has 41984"]


def test_a_root_catalog_that_is_missing_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.fields["C"] = "a" * 40
    forgery.seal()
    assert defects(forgery) == [
        f".cvmfsreflog: lists data/aa/{'a' * 38}C, which is missing",
        f"/: its catalog data/aa/{'a' * 38}C is missing",
    ]


@pytest.mark.parametrize("field", ["C", "R", "D", "S", "N", "X"])
def test_a_manifest_without_a_field_that_clients_need_is_told(forgery: Forgery, defects: Defects, field: str) -> None:
    forgery.keep_reflog = True
    del forgery.fields[field]
    forgery.seal()
    assert defects(forgery) == [f".cvmfspublished: field {field} is missing"]


@pytest.mark.parametrize(
    ("field", "value", "defect"),
    [
        ("S", "seven", "field S is no number: 'seven'"),
        ("C", "XYZ", "field C is no hash: 'XYZ'"),
        ("R", "0" * 32, f"field R is {'0' * 32!r} instead of d41d8cd98f00b204e9800998ecf8427e"),
    ],
)
def test_a_malformed_field_is_told(forgery: Forgery, defects: Defects, field: str, value: str, defect: str) -> None:
    forgery.keep_reflog = True
    forgery.fields[field] = value
    forgery.seal()
    assert defects(forgery) == [f".cvmfspublished: {defect}"]


def test_the_manifest_of_another_repository_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.fields["N"] = "other.example.org"
    forgery.seal()
    assert ".cvmfspublished: is of the repository other.example.org, not of golden.example.org" in defects(forgery)


def test_a_changed_manifest_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.seal()
    path = forgery.root / ".cvmfspublished"
    path.write_bytes(path.read_bytes().replace(b"\nS7\n", b"\nS9\n"))
    (defect,) = defects(forgery)
    assert defect.startswith(".cvmfspublished: has been changed: its text has not the hash")


@pytest.mark.parametrize("file", [".cvmfspublished", ".cvmfswhitelist"])
def test_a_broken_signature_is_told(forgery: Forgery, defects: Defects, file: str) -> None:
    forgery.seal()
    path = forgery.root / file
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    (defect,) = defects(forgery)
    assert (
        defect
        == {
            ".cvmfspublished": ".cvmfspublished: is not signed by the certificate that it names",
            ".cvmfswhitelist": ".cvmfswhitelist: is signed by none of the given public master keys",
        }[file]
    )


@pytest.mark.parametrize("file", [".cvmfspublished", ".cvmfswhitelist"])
@pytest.mark.parametrize(
    ("cut", "defect"),
    [
        (slice(-256), "has no signature"),
        (slice(30), "has no line -- before a signature"),
        (slice(-297), "is no text followed by its hash"),
    ],
)
def test_a_letter_of_the_wrong_form_is_told(
    forgery: Forgery, defects: Defects, file: str, cut: slice, defect: str
) -> None:
    forgery.seal()
    path = forgery.root / file
    path.write_bytes(path.read_bytes()[cut])
    assert defects(forgery) == [f"{file}: {defect}"]


def test_a_missing_manifest_or_whitelist_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.seal()
    (forgery.root / ".cvmfspublished").unlink()
    (forgery.root / ".cvmfswhitelist").unlink()
    assert defects(forgery) == [
        ".cvmfspublished: is missing: there is no repository",
        ".cvmfswhitelist: is missing, so that clients refuse the repository",
    ]


def test_a_whitelist_that_has_expired_is_told_from_the_beginning_of_its_hour(forgery: Forgery) -> None:
    forgery.expires = datetime(2031, 5, 6, 7, 59, 59, tzinfo=UTC)
    forgery.seal()
    found = []
    for moment in (datetime(2031, 5, 6, 6, 59, 59, tzinfo=UTC), datetime(2031, 5, 6, 7, tzinfo=UTC)):
        checker = Checker(
            DirectoryStorage(forgery.root),
            name=GOLDEN_NAME,
            master_keys=[forged_key()],
            clock=iter([moment]).__next__,
        )
        found.append([str(problem) for problem in checker.run().problems])
    assert found == [
        [],
        [
            (
                ".cvmfswhitelist: has expired at 2031-05-06 07:00 UTC: sign the whitelist again with the master key"
                " (thin-repository resign)"
            ),
        ],
    ]


def test_the_whitelist_of_another_repository_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.name = "other.example.org"
    forgery.seal()
    assert defects(forgery) == [".cvmfswhitelist: is for the repository other.example.org, not for golden.example.org"]


def test_a_certificate_that_the_whitelist_does_not_list_is_told(forgery: Forgery, defects: Defects) -> None:
    (own,) = forgery.fingerprints
    forgery.fingerprints = [":".join(["00"] * 20)]
    forgery.seal()
    assert defects(forgery) == [f".cvmfswhitelist: does not list the certificate {own}"]


@pytest.mark.parametrize(
    ("line", "defect"),
    [
        ("00:11", "no fingerprint of a certificate: '00:11'"),
        ("Vpkcs7", "is verified by 'pkcs7', which is not supported here"),
    ],
)
def test_a_line_of_the_whitelist_of_another_kind_is_told(
    forgery: Forgery, defects: Defects, line: str, defect: str
) -> None:
    forgery.fingerprints.insert(0, line)
    forgery.seal()
    assert defects(forgery) == [f".cvmfswhitelist: {defect}"]


def test_one_of_several_lines_with_a_comment_is_enough(forgery: Forgery, defects: Defects) -> None:
    (own,) = forgery.fingerprints
    forgery.fingerprints = [":".join(["00"] * 20), f"{own} # the present one"]
    forgery.seal()
    assert defects(forgery) == []


def test_a_certificate_that_is_missing_or_none_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.seal()
    forgery.object(forgery.fields["X"], "X").unlink()
    path = f"data/{forgery.fields['X'][:2]}/{forgery.fields['X'][2:]}X"
    assert defects(forgery) == [
        f".cvmfspublished: its certificate {path} is missing",
        f".cvmfsreflog: lists {path}, which is missing",
    ]
    forgery.fields["X"] = forgery.store(b"no certificate", "X")
    forgery.reflog("DELETE FROM refs WHERE type = 1")
    forgery.seal()
    (defect,) = defects(forgery)
    assert defect.endswith("X is no PEM certificate")


@pytest.mark.parametrize(("field", "what"), [("H", "tag database"), ("M", "meta information")])
def test_what_else_the_manifest_names_is_read(forgery: Forgery, defects: Defects, field: str, what: str) -> None:
    forgery.seal()
    forgery.object(forgery.fields[field], field).unlink()
    path = f"data/{forgery.fields[field][:2]}/{forgery.fields[field][2:]}{field}"
    assert defects(forgery) == [
        f".cvmfspublished: its {what} {path} is missing",
        f".cvmfsreflog: lists {path}, which is missing",
    ]
    forgery.object(forgery.fields[field], field).write_bytes(zlib.compress(b"?"))
    (defect,) = defects(forgery)
    assert defect.startswith(f".cvmfspublished: its {what} {path} has been changed")


@pytest.mark.parametrize(
    ("statement", "defect"),
    [
        (
            "UPDATE tags SET revision = 4 WHERE name = 'v1'",
            "tag v1: is of revision 4, and its root catalog of 5",
        ),
        (
            "UPDATE tags SET size = 1024 WHERE name = 'v1'",
            "tag v1: says that its root catalog has 1024 bytes, which has 41984",
        ),
        (
            "UPDATE tags SET hash = printf('%.40c', 'b') WHERE name = 'v1'",
            f"/: its catalog data/bb/{'b' * 38}C is missing",
        ),
        (
            "UPDATE properties SET value = 'x.org' WHERE key = 'fqrn'",
            "{history}: its property fqrn is x.org instead of golden.example.org",
        ),
        (
            "DELETE FROM properties WHERE key = 'schema_revision'",
            "{history}: its property schema_revision is '', which is no number",
        ),
        (
            "UPDATE properties SET value = 'before' WHERE key = 'previous_revision'",
            "{history}: its property previous_revision is 'before', no hash, and is followed back",
        ),
        (
            "UPDATE branches SET initial_revision = 6",
            "{history}: the tag 'v1' is of a revision from before its branch",
        ),
        ("UPDATE tags SET name = 'a b' WHERE name = 'v1'", "tag a b: has a name that the stock tools do not take"),
        ("DELETE FROM tags", "{history}: has no tag, which the stock checker refuses"),
        (
            "UPDATE tags SET branch = 'other' WHERE name = 'v1'",
            "{history}: a tag is of the branch 'other', which there is not",
        ),
        (
            "UPDATE tags SET branch = NULL WHERE name = 'v1'",
            "{history}: a tag is of the branch None, which there is not",
        ),
        (
            "INSERT INTO branches VALUES ('other', '', 0)",
            "{history}: no tag is of the branch 'other', which the stock checker refuses",
        ),
        (
            "UPDATE tags SET hash = 'XYZ' WHERE name = 'v1'",
            "{history}: the tag b'v1' is malformed: (b'XYZ', 5, 1795505432, b'first', 41984)",
        ),
    ],
)
def test_a_wrong_tag_database_is_told(forgery: Forgery, defects: Defects, statement: str, defect: str) -> None:
    forgery.history(statement)
    forgery.seal()
    name = forgery.fields["H"]
    assert defect.format(history=f"data/{name[:2]}/{name[2:]}H") in defects(forgery)


def test_a_reference_log_that_the_manifest_does_not_know_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.seal()
    forgery.keep_reflog = True
    right = forgery.fields.pop("Y")
    forgery.seal()
    assert defects(forgery) == [
        ".cvmfspublished: has no field Y with the hash of .cvmfsreflog, which the stock checker wants"
    ]
    forgery.fields["Y"] = "a" * 40
    forgery.seal()
    assert defects(forgery) == [f".cvmfsreflog: its hash is {right}, and the manifest says {'a' * 40}"]


@pytest.mark.parametrize(
    ("statement", "defect"),
    [
        (
            "DELETE FROM refs WHERE type = 3",
            "does not list data/85/e4f386da0d5d77c7f66cf2f58e10951f24b653M, which the manifest names",
        ),
        (
            f"INSERT INTO refs VALUES ('{_NESTED2}', 0, 1)",
            f"lists data/90/{_NESTED2[2:]}C, which is a nested catalog, as a root catalog",
        ),
        ("INSERT INTO refs VALUES (printf('%.40c', 'a'), 0, 1)", f"lists data/aa/{'a' * 38}C, which is missing"),
        (
            "UPDATE properties SET value = '1' WHERE key = 'schema_revision'",
            "its property schema_revision is 1 instead of 0",
        ),
        ("DELETE FROM properties WHERE key = 'schema'", "its property schema is None instead of 1.0"),
        ("INSERT INTO refs VALUES ('XYZ', 0, 1)", "the reference b'XYZ' of type 0 is malformed"),
        (
            "UPDATE properties SET value = 'x.org' WHERE key = 'fqrn'",
            "is of the repository x.org, not of golden.example.org",
        ),
    ],
)
def test_a_wrong_reference_log_is_told(forgery: Forgery, defects: Defects, statement: str, defect: str) -> None:
    forgery.seal()
    forgery.reflog(statement)
    forgery.keep_reflog = True
    forgery.fields["Y"] = _name((forgery.root / ".cvmfsreflog").read_bytes())
    forgery.seal()
    assert defects(forgery) == [f".cvmfsreflog: {defect}"]


def test_a_predecessor_that_is_missing_is_told_where_nothing_is_collected(forgery: Forgery, defects: Defects) -> None:
    forgery.edit("", "UPDATE properties SET value = printf('%.40c', 'a') WHERE key = 'previous_revision'")
    forgery.seal()
    assert defects(forgery) == []
    forgery.fields["G"] = "no"
    forgery.seal()
    path = f"data/aa/{'a' * 38}C"
    assert defects(forgery) == [f"/: the catalog before its own, {path}, is missing, and replicas fail without it"]


def test_links_that_the_manifest_promises_are_looked_for(forgery: Forgery, defects: Defects) -> None:
    forgery.fields["A"] = "yes"
    forgery.seal()
    links = [f".cvmfsalt-{forgery.fields['C']}C", f".cvmfsalt-{forgery.fields['X']}X"]
    promised = ".cvmfspublished: says by its field A that there is a link"
    assert defects(forgery) == sorted(f"{promised} {link}, which there is not" for link in links)
    for link, field in zip(links, "CX", strict=True):
        (forgery.root / link).symlink_to(forgery.object(forgery.fields[field], field))
    assert defects(forgery) == []


def test_a_repository_without_a_reference_log_is_whole(forgery: Forgery, defects: Defects) -> None:
    forgery.seal()
    (forgery.root / ".cvmfsreflog").unlink()
    assert defects(forgery) == []


def test_many_defects_of_a_kind_are_counted(forgery: Forgery, defects: Defects) -> None:
    forgery.edit("", "UPDATE catalog SET uid = -1 WHERE mode & 61440 = 32768")
    forgery.seal()
    found = defects(forgery)
    assert len(found) == 21
    assert sum(defect.endswith(": its uid is -1, which is out of range") for defect in found) == 20
    (rest,) = (defect for defect in found if "more entries" in defect)
    assert rest.startswith("/: 47 more entries have the same defect as /")


def test_defects_without_end_are_counted(forgery: Forgery, defects: Defects) -> None:
    forgery.edit(
        "",
        """INSERT INTO catalog
           WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < 1500)
           SELECT first('/files/' || n), second('/files/' || n), parent_1, parent_2, hardlinks, hash, size, mode, mtime,
                  mtimens, flags, n || '', symlink, uid, gid, x'0101'
           FROM many JOIN (SELECT * FROM catalog WHERE name = 'small.txt')""",
        "UPDATE statistics SET value = value + 1500 WHERE counter IN ('self_regular', 'self_xattr')",
        "UPDATE statistics SET value = value + 21 * 1500 WHERE counter = 'self_file_size'",
    )
    forgery.seal()
    found = defects(forgery)
    assert len(found) == 1001
    assert found[0] == "/: 500 more defects are here"
    assert found[1] == "/files/1: its extended attributes do not end within their column of 2 bytes"


def test_a_storage_that_fails_is_no_defect() -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        Checker(HttpSource("http://127.0.0.1:1/"), name=GOLDEN_NAME, master_keys=[GOLDEN_KEY]).run()


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(UntrustedError, match="no PEM file of a public key"):
        Checker(DirectoryStorage(GOLDEN), name=GOLDEN_NAME, master_keys=[b"no key"])


def test_both_revisions_are_checked(forgery: Forgery, defects: Defects) -> None:
    """The head has been changed, so that the tags v2 and trunk lead to the old root catalog."""
    forgery.edit("", "UPDATE catalog SET mtime = 7 WHERE name = 'small.txt'")
    forgery.seal()
    forgery.object(ROOT_CATALOG, "C").unlink()
    where = f"data/f5/{ROOT_CATALOG[2:]}C"
    assert defects(forgery) == [
        f".cvmfsreflog: lists {where}, which is missing",
        f"/: its catalog {where} is missing",
    ]
