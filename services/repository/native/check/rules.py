# ruff: noqa: S608 - the queries are made of the constants below
"""What must hold for the rows of one catalog, as queries for the rows that break it.

SQLite runs the queries without Python's lock, so that catalogs are checked side by side on all cores, and with little
memory however large they are. What a rule protects from was measured with CernVM-FS 2.12.
"""

from dataclasses import dataclass
from typing import Final

from services.repository.native.check.problem import PUBLISH_AGAIN

__all__ = ["ROW_RULES", "TYPE_RULES", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A query for what breaks a rule, and how to tell it."""

    text: str
    """What is wrong, with `{0}` and so on for the query's columns from the third on."""
    query: str
    """Reads the table `entry`, which has all columns of the newest schema; its first two columns are the path hash of
    the entry at fault. `:root_1` and `:root_2` are the path hash of the catalog's root."""
    remedy: str = PUBLISH_AGAIN
    hides: bool = False
    """Whether entries that break it, and what is below them, cannot be met on the way from the root."""


_KEY: Final = "md5path_1, md5path_2"
_DIR: Final = "mode & 61440 = 16384"
_REG: Final = "mode & 61440 = 32768"
_LNK: Final = "mode & 61440 = 40960"
_SPECIAL: Final = "mode & 61440 IN (4096, 8192, 24576, 49152)"
_COUNT: Final = "hardlinks & 4294967295"
_GROUP: Final = "hardlinks >> 32"
_IS_ROOT: Final = "md5path_1 = :root_1 AND md5path_2 = :root_2"

_TYPES: Final = {
    **dict.fromkeys(("hardlinks", "size", "mode", "mtime", "flags", "uid", "gid"), "'integer'"),
    "mtimens": "'integer', 'null'",
    "name": "'text', 'blob'",
    "symlink": "'text', 'blob', 'null'",
    "hash": "'blob', 'null'",
    "xattr": "'blob', 'null'",
}
_RANGES: Final = {
    "size": (0, (1 << 63) - 1),
    "mode": (0, 0o177777),
    "mtimens": (0, 999_999_999),
    "uid": (0, (1 << 32) - 1),
    "gid": (0, (1 << 32) - 1),
    "hardlinks": (0, (1 << 63) - 1),
    "flags": (0, 0x1FFFF),
}
_WRONG_RANGE: Final = " ".join(
    f"WHEN typeof({column}) = 'integer' AND {column} NOT BETWEEN {least} AND {most} THEN '{column} is ' || {column}"
    for column, (least, most) in _RANGES.items()
)
_SAME: Final = ("mode", "uid", "gid", "size", "mtime", "mtimens", "flags", "hash", "symlink", "xattr")
_DIFFERENT: Final = " ".join(f"WHEN count(DISTINCT ifnull({column}, x'')) > 1 THEN '{column}'" for column in _SAME)

TYPE_RULES: Final = (
    Rule(
        "its symlink column is NULL, which makes clients crash",
        f"SELECT {_KEY} FROM entry WHERE symlink IS NULL",
        "publish it again: what is no symbolic link has an empty text there",
    ),
    *(
        Rule(
            f"its {column} is of the type {{0}}",
            f"SELECT {_KEY}, typeof({column}) FROM entry WHERE typeof({column}) NOT IN ({types})",
        )
        for column, types in _TYPES.items()
    ),
    Rule(
        "its {0}, which is out of range",
        f"SELECT * FROM (SELECT {_KEY}, CASE {_WRONG_RANGE} END AS wrong FROM entry) WHERE wrong IS NOT NULL",
    ),
)
"""Rules about columns. Where one of them is broken, the others say nothing of use."""

ROW_RULES: Final = (
    Rule(
        "its mode {0} and its flags {1} name different types",
        f"""SELECT {_KEY}, printf('%o', mode), flags FROM entry
            WHERE flags & 29 != CASE WHEN {_DIR} THEN 1 WHEN {_REG} THEN 4 WHEN {_LNK} THEN 12 WHEN {_SPECIAL} THEN 20
                                     ELSE -1 END
            OR (flags & 0x4022 AND NOT {_DIR}) OR (flags & 0x100C0 AND NOT {_REG})""",
    ),
    Rule(
        "its name {0} is not one that a file can have",
        f"""SELECT {_KEY}, quote(name) FROM entry
            WHERE (name IN ('', '.', '..') AND NOT ({_IS_ROOT} AND name = ''))
            OR length(CAST(name AS BLOB)) > 255 OR instr(CAST(name AS BLOB), x'2f')
            OR instr(CAST(name AS BLOB), x'00')""",
    ),
    Rule(
        "its directory has another entry of the same name",
        f"""SELECT {_KEY} FROM entry JOIN (
                SELECT parent_1 AS p1, parent_2 AS p2, CAST(name AS BLOB) AS n FROM entry
                GROUP BY 1, 2, 3 HAVING count(*) > 1
            ) ON parent_1 = p1 AND parent_2 = p2 AND CAST(name AS BLOB) = n""",
    ),
    Rule(
        "it is a symbolic link with a target of {0} bytes; clients show 1 to 4095",
        f"SELECT {_KEY}, length(CAST(symlink AS BLOB)) AS n FROM entry WHERE {_LNK} AND n NOT BETWEEN 1 AND 4095",
    ),
    Rule(
        "it is no symbolic link, and has the target {0}",
        f"SELECT {_KEY}, quote(symlink) FROM entry WHERE NOT {_LNK} AND symlink != ''",
    ),
    Rule(
        "it is a regular file that names no content",
        f"SELECT {_KEY} FROM entry WHERE {_REG} AND flags & 64 = 0 AND hash IS NULL",
    ),
    Rule(
        "its hash has {0} bytes instead of 20",
        f"SELECT {_KEY}, length(hash) FROM entry WHERE length(hash) != 20",
    ),
    Rule(
        "it is no regular file, and has a hash",
        f"SELECT {_KEY} FROM entry WHERE NOT {_REG} AND hash IS NOT NULL",
    ),
    Rule(
        "its flags {0} name no known hash algorithm or compression",
        f"SELECT {_KEY}, flags FROM entry WHERE flags >> 8 & 7 > 2 OR flags >> 11 & 7 > 1",
    ),
    Rule(
        "it is a fifo or socket and has the size {0}, which the stock checker refuses",
        f"SELECT {_KEY}, size FROM entry WHERE mode & 61440 IN (4096, 49152) AND size != 0",
    ),
    Rule(
        "its row is number {0}, and clients number inodes by that, from 1 on without large gaps",
        f"SELECT {_KEY}, rowid FROM entry WHERE rowid NOT BETWEEN 1 AND 4294967295",
    ),
    Rule(
        "its number of links is 0",
        f"SELECT {_KEY} FROM entry WHERE NOT {_DIR} AND {_COUNT} = 0",
    ),
    Rule(
        "it has {0} links and is in no group of hard links",
        f"SELECT {_KEY}, {_COUNT} AS n FROM entry WHERE NOT {_DIR} AND {_GROUP} = 0 AND n > 1",
    ),
    Rule(
        "its group of hard links is in {0} directories, which the stock checker refuses",
        f"""SELECT {_KEY}, n FROM entry JOIN (
                SELECT {_GROUP} AS g, count(DISTINCT parent_1 || ' ' || parent_2) AS n FROM entry
                WHERE NOT {_DIR} AND {_GROUP} > 0 GROUP BY 1 HAVING n > 1
            ) ON {_GROUP} = g""",
        "publish it again with links in one directory as a group, and those elsewhere as files of their own",
    ),
    Rule(
        "it has {0} links, and its group of hard links {1} members",
        f"""SELECT {_KEY}, {_COUNT} AS n, members FROM entry JOIN (
                SELECT {_GROUP} AS g, count(*) AS members FROM entry WHERE NOT {_DIR} AND {_GROUP} > 0 GROUP BY 1
            ) ON {_GROUP} = g WHERE n != members""",
    ),
    Rule(
        "its {0} is not the same as that of the other members of its group of hard links",
        f"""SELECT {_KEY}, wrong FROM entry JOIN (
                SELECT {_GROUP} AS g, CASE {_DIFFERENT} END AS wrong FROM entry
                WHERE NOT {_DIR} AND {_GROUP} > 0 GROUP BY 1
            ) ON {_GROUP} = g WHERE wrong IS NOT NULL""",
    ),
    Rule(
        "it has {0} links instead of {1}: 2 and one for every directory in it",
        f"""SELECT {_KEY}, hardlinks, 2 + ifnull(n, 0) AS wanted FROM entry LEFT JOIN (
                SELECT parent_1 AS p1, parent_2 AS p2, count(*) AS n FROM entry
                WHERE {_DIR} AND NOT ({_IS_ROOT}) GROUP BY 1, 2
            ) ON md5path_1 = p1 AND md5path_2 = p2 WHERE {_DIR} AND flags & 0x4002 = 0 AND hardlinks != wanted""",
    ),
    Rule(
        "its parent is not in its catalog",
        f"""SELECT {_KEY} FROM entry WHERE NOT ({_IS_ROOT}) AND NOT EXISTS (
                SELECT 1 FROM catalog AS parent
                WHERE parent.md5path_1 = entry.parent_1 AND parent.md5path_2 = entry.parent_2
            )""",
        hides=True,
    ),
    Rule(
        "what it lies in is no directory of this catalog",
        """SELECT child.md5path_1, child.md5path_2 FROM entry AS child JOIN entry AS parent
            ON child.parent_1 = parent.md5path_1 AND child.parent_2 = parent.md5path_2
            WHERE NOT (child.md5path_1 = :root_1 AND child.md5path_2 = :root_2)
            AND (parent.flags & 1 = 0 OR parent.flags & 0x4002)""",
        "publish it again: what lies below a nested catalog's mountpoint is in the nested catalog only",
        hides=True,
    ),
    Rule(
        "it is marked as the mountpoint of a nested catalog and of another revision, and can only be one",
        f"SELECT {_KEY} FROM entry WHERE flags & 0x4002 = 0x4002",
    ),
    Rule(
        "it is marked as the root of a nested catalog and is none",
        f"SELECT {_KEY} FROM entry WHERE flags & 32 AND NOT ({_IS_ROOT})",
    ),
    Rule(
        "it is a file in chunks and has none",
        f"""SELECT {_KEY} FROM entry WHERE flags & 64 AND NOT EXISTS (
                SELECT 1 FROM chunks WHERE chunks.md5path_1 = entry.md5path_1 AND chunks.md5path_2 = entry.md5path_2
            )""",
    ),
    Rule(
        "it has chunks and is no file in chunks",
        """SELECT DISTINCT md5path_1, md5path_2 FROM chunks WHERE NOT EXISTS (
               SELECT 1 FROM catalog AS file WHERE file.md5path_1 = chunks.md5path_1
               AND file.md5path_2 = chunks.md5path_2 AND file.flags & 64
           )""",
    ),
    Rule(
        "after byte {0} its next chunk begins at {1}",
        f"""SELECT {_KEY}, wanted, offset FROM (
                SELECT {_KEY}, offset,
                       lag(offset + size, 1, 0) OVER (PARTITION BY {_KEY} ORDER BY offset, size) AS wanted
                FROM chunks
            ) WHERE offset != wanted""",
    ),
    Rule(
        "its chunks have {0} bytes, and it {1}",
        f"""SELECT {_KEY}, total, size FROM entry JOIN (
                SELECT md5path_1 AS k1, md5path_2 AS k2, sum(size) AS total FROM chunks GROUP BY 1, 2
            ) ON md5path_1 = k1 AND md5path_2 = k2 WHERE flags & 64 AND total != size""",
    ),
    Rule(
        "its chunk at byte {0} is malformed",
        f"""SELECT {_KEY}, offset FROM chunks WHERE typeof(offset) != 'integer' OR typeof(size) != 'integer'
            OR size < 0 OR typeof(hash) != 'blob' OR length(hash) != 20""",
    ),
)
"""Rules about entries, given that their columns are sound."""
