"""YAML with places and bounds."""

import pytest

from services.converter.wishlist.tree import SIZE_LIMIT, Mapping, Scalar, Sequence, TreeError, parse_tree


def _tree(text: str) -> object:
    return parse_tree(text.encode(), "f").data


def test_nodes_know_where_they_are_written() -> None:
    root = parse_tree(b"a: 1\nlist:\n  - one\n  -   two\n", "dir/f.yaml")
    assert isinstance(root, Mapping)
    key, value = root.entries["list"]
    assert str(key) == "dir/f.yaml:2:1"
    assert isinstance(value, Sequence)
    assert [str(item.origin) for item in value.items] == ["dir/f.yaml:3:5", "dir/f.yaml:4:7"]


def test_scalars_stay_what_is_written() -> None:
    assert _tree("[1.10, no, 012, 2024-01-05, 1e3, '~']") == ["1.10", "no", "012", "2024-01-05", "1e3", "~"]
    assert _tree("a: ~\nb:\nc: null\nd: ''\n") == {"a": None, "b": None, "c": None, "d": ""}


def test_anchors_and_merge_keys() -> None:
    text = "x: &x {a: 1, b: 2}\ny: &y {c: 3}\nz: {<<: [*x, *y], b: own}\nagain: *x\n"
    assert _tree(text) == {
        "x": {"a": "1", "b": "2"},
        "y": {"c": "3"},
        "z": {"a": "1", "b": "own", "c": "3"},
        "again": {"a": "1", "b": "2"},
    }


def test_a_byte_order_mark_is_no_text() -> None:
    root = parse_tree(b"\xef\xbb\xbfa: b", "f")
    assert isinstance(root, Mapping)
    assert list(root.entries) == ["a"]


@pytest.mark.parametrize(
    ("content", "place", "text"),
    [
        (b"", "1:1", "empty"),
        (b"# nothing but this\n", "1:1", "empty"),
        (b"a: b\n\tc: d\n", "2:1", "tabs cannot indent, use spaces"),
        (b"a: [1, 2\nb: c\n", "2:2", "not YAML"),
        (b"a: b\nc: \xff\n", "2:4", "not UTF-8 (byte 0xff): save the file as UTF-8"),
        ("a: b".encode("utf-16"), "1:1", "UTF-16"),
        (b"a: b\nc: x\x00\n", "2:5", "U+0000"),
        (b"a: b\nb: 1\na: c\n", "3:1", "the key 'a' a second time (first in line 1)"),
        (b"a: *x\n", "1:4", "*x is defined nowhere before"),
        (b"a: &x [1, *x]\n", "1:11", "*x contains itself"),
        (b"? [a]\n: b\n", "1:3", "a key that is no text"),
        (b"a: b\n---\na: b\n", "2:1", "a second document"),
        (b"a: !!python/object/apply:os.system [ls]\n", "1:4", "a YAML tag"),
        (b"a: !Custom x\n", "1:4", "a YAML tag"),
        (b"<<: [1]\n", "1:6", "'<<' merges mappings only"),
        (b"[" * 500, "1:21", "more than 20 levels"),
        (b"[" * 100_000, "1:1001", "exceeded maximum nesting depth"),
        (b"- " * 100_000, "1:41", "more than 20 levels"),
        (b"a: " + b"x" * 20_000, "1:4", "a text of 20000 characters"),
        (b"#" * (SIZE_LIMIT + 1), "1:1", "at most 16 MiB"),
    ],
)
def test_what_is_refused(content: bytes, place: str, text: str) -> None:
    with pytest.raises(TreeError) as refused:
        parse_tree(content, "f")
    assert str(refused.value).startswith(f"f:{place}: ")
    assert text in str(refused.value)


def test_aliases_of_aliases_do_not_explode() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(TreeError, match="values, aliases counted"):
        parse_tree("\n".join(lines).encode(), "f")


def test_merged_mappings_do_not_explode_either() -> None:
    lines = ["m0: &m0 {" + ", ".join(f"k{n}: [x, x, x, x, x, x, x, x, x]" for n in range(1000)) + "}"]
    lines += [f"m{n}: {{<<: *m0}}" for n in range(1, 1000)]
    with pytest.raises(TreeError, match="values, aliases counted"):
        parse_tree("\n".join(lines).encode(), "f")


def test_a_scalar_is_a_document() -> None:
    assert isinstance(parse_tree(b"text", "f"), Scalar)
