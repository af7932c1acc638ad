"""Random changes of inputs, which Hypothesis draws and shrinks."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.support.soak import Soak

__all__ = ["changed", "changed_json", "tried"]

_Input = TypeVar("_Input")

_ROUND: Final = 200
"""Inputs of one run of Hypothesis, which begins anew with another seed until time is up."""
_TELLING: Final = b'\0 /.0179\xff\x80xgLKS{}[]"\n'
"""Bytes that mean something to one reader or another."""
_POSITION: Final = st.integers(0, 1 << 30)


def tried(soak: Soak, inputs: st.SearchStrategy[_Input], attempt: Callable[[_Input], object], *, quick: int) -> int:
    """Try inputs, as many as there is time for, and return how many they were.

    Parameters
    ----------
    soak
        How long this goes on.
    inputs
        Draws them.
    attempt
        Tries one, and raises if anything is wrong.
    quick
        How many are tried in `make test`; `make soak` goes on for 20 seconds.
    """
    count = 0

    def one(drawn: _Input) -> None:
        nonlocal count
        count += 1
        attempt(drawn)

    chosen = settings(
        max_examples=soak.pick(quick, _ROUND),
        deadline=None,
        database=None,
        derandomize=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    end = time.monotonic() + soak.pick(0.0, 20.0)
    while True:
        seed(soak.random.getrandbits(64))(chosen(given(inputs)(one)))()
        if time.monotonic() >= end:
            return count


def changed(corpus: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Draw inputs of a corpus with bytes changed, taken out, put in twice, cut off, or with the end of another."""
    single = st.one_of(st.integers(0, 255), st.sampled_from(_TELLING))
    change = st.one_of(
        st.tuples(st.just("set"), _POSITION, single),
        st.tuples(st.just("delete"), _POSITION, st.integers(1, 600)),
        st.tuples(st.just("repeat"), _POSITION, st.integers(1, 600)),
        st.tuples(st.just("cut"), _POSITION, st.just(0)),
        st.tuples(st.just("splice"), _POSITION, _POSITION),
    )
    return st.builds(
        lambda number, changes: _changed(corpus, corpus[number], changes),
        st.integers(0, len(corpus) - 1),
        st.lists(change, min_size=1, max_size=5),
    )


def _changed(corpus: Sequence[bytes], content: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    for kind, where, value in changes:
        at = where % (len(content) + 1)
        match kind:
            case "set":
                content = content[:at] + bytes([value]) + content[at + 1 :]
            case "delete":
                content = content[:at] + content[at + value :]
            case "repeat":
                content = content[: at + value] + content[at:]
            case "cut":
                content = content[:at]
            case "splice":
                other = corpus[value % len(corpus)]
                content = content[:at] + other[at % (len(other) + 1) :]
    return content


_VALUES: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([1 << 31, 1 << 63, -(1 << 63) - 1, 10**400, 1e308, float("nan"), float("inf"), 0.5]),
    st.sampled_from(["", ".", "..", "/", "../../etc", "a\0b", "\ud800", "\u202e", "%00", "%2e%2e", "x" * 70_000]),
    st.text(max_size=8),
    st.sampled_from([[], {}, [[]], [None], {"": None}, [0] * 2000]),
)


def changed_json(corpus: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Draw documents of a corpus with values exchanged, names changed, elements taken out or put in twice."""
    change = st.tuples(_POSITION, st.sampled_from(["set", "delete", "repeat", "rename", "nest"]), _VALUES)
    documents = [json.loads(content) for content in corpus]
    return st.builds(
        lambda number, changes: json.dumps(_altered(documents[number], changes)).encode(),
        st.integers(0, len(corpus) - 1),
        st.lists(change, min_size=1, max_size=4),
    )


def _altered(document: Any, changes: list[tuple[int, str, Any]]) -> Any:  # noqa: ANN401 - JSON
    document = json.loads(json.dumps(document))
    for where, kind, value in changes:
        places = list(_places(document))
        if not places:
            return value
        holder, key = places[where % len(places)]
        match kind:
            case "set":
                holder[key] = value
            case "delete":
                del holder[key]
            case "repeat" if isinstance(holder, list):
                holder.append(holder[key])
            case "repeat" | "rename":
                old = holder[key] if isinstance(holder, list) else holder.pop(key)
                if isinstance(holder, dict):
                    holder[str(value)[:100]] = old
            case "nest":
                holder[key] = [holder[key]]
    return document


def _places(document: Any) -> Any:  # noqa: ANN401 - JSON
    """Give every place of a document, as what holds it and its key there."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in list(items):
        yield document, key
        yield from _places(value)
