"""Documents that want to do harm: their readers take them, or raise their own error, in little time and memory."""

import time
from typing import Final

import pytest
from hypothesis import strategies as st

from harness.reliability.figures import Chapter, Trial
from tests.hostile.changes import changed, changed_json, tried
from tests.hostile.documents import DOCUMENTS, NO_JSON, ODD_JSON, Document
from tests.hostile.memory import Memory
from tests.support.soak import Soak

_SECONDS: Final = 5.0
"""CPU time that reading one may take."""
_MEMORY: Final = 128 << 20
"""Bytes that reading one may take: a thousand times as many as the largest of them has are not enough."""


def _refusal(document: Document, content: bytes) -> str | None:
    """Read a document; return what its reader has to say against it. Whatever else is raised is a defect."""
    began = time.process_time()
    try:
        document.read(content)
    except document.error as error:
        text = str(error)
        assert text
        assert len(text) < 20_000, f"{document.subject}: {text[:100]}"
        text.encode()  # it can be written to a log and sent
        return text
    finally:
        assert time.process_time() - began < _SECONDS, document.subject
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=[document.subject for document in DOCUMENTS])
def test_seeds_are_of_their_form(document: Document) -> None:
    assert _refusal(document, document.seeds[0]) is None


def test_what_is_no_such_document(soak: Soak) -> None:
    accepted, times, most = [], 0, 0
    for document in DOCUMENTS:
        for name, content in {**NO_JSON, **ODD_JSON}.items():
            with Memory() as memory:
                refusal = _refusal(document, content)
            most = max(most, memory.taken)
            times += 1
            if document.json and name in NO_JSON and refusal is None:
                accepted.append(f"{document.subject}: {name}")
    assert accepted == []
    assert most < _MEMORY
    soak.record(
        Trial(
            chapter=Chapter.HOSTILE,
            subject="documents of 17 kinds, from descriptors to webhooks and manifests",
            tried="what is no JSON, nearly JSON, or JSON of another kind, deep, wide and large",
            times=times,
            losses={"crashes": 0, "accepted that must be refused": len(accepted)},
            seen={"most memory, MB": most >> 20},
        )
    )


def test_changed_at_random(soak: Soak) -> None:
    taken = 0

    def attempt(drawn: tuple[Document, bytes]) -> None:
        nonlocal taken
        taken += _refusal(*drawn) is None

    def inputs(document: Document) -> st.SearchStrategy[tuple[Document, bytes]]:
        of_bytes = changed(document.seeds)
        contents = st.one_of(changed_json(document.seeds), of_bytes) if document.json else of_bytes
        return st.tuples(st.just(document), contents)

    times = tried(soak, st.sampled_from(DOCUMENTS).flatmap(inputs), attempt, quick=100)
    soak.record(
        Trial(
            chapter=Chapter.HOSTILE,
            subject="documents of 17 kinds, changed at random",
            tried="values, names and bytes changed, taken out, put in twice and put into one another",
            times=times,
            losses={"crashes": 0},
            seen={"taken": taken, "refused": times - taken},
        )
    )
