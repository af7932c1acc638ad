"""What the stock checker demands of the reference log, judged by the files alone, with nothing of the suite's code."""

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing

__all__ = ["faults_of_reflog"]


def faults_of_reflog(read: Callable[[str], bytes | None]) -> list[str]:
    """Say what it would find.

    Parameters
    ----------
    read
        Returns a file of the repository's root; nothing where it is not there.
    """
    letter, log = read(".cvmfspublished"), read(".cvmfsreflog")
    if letter is None or log is None:
        return []
    body = letter.partition(b"--\n")[0].decode("ascii")
    fields = {line[:1]: line[1:] for line in body.splitlines()}
    faults = []
    if fields.get("Y") != hashlib.sha1(log, usedforsecurity=False).hexdigest():
        faults.append("the hash of the reference log is not that of the manifest")
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(log)
        listed = set(connection.execute("SELECT hash, type FROM refs"))
    faults += [
        f"the reference log lacks {field}"
        for kind, field in enumerate("CXHM")
        if field in fields and (fields[field], kind) not in listed
    ]
    return faults
