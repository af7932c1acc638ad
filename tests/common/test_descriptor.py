import copy
import json
import pickle

import pytest

from services.common.descriptor import (
    DESCRIPTOR_LIMIT,
    LAYER_LIMIT,
    LayerUrl,
    NotADescriptorError,
    ThinDescriptor,
    ThinLayer,
)
from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName

A, B = Digest("a" * 64), Digest("b" * 64)
PUBLISHED = f"""{{
  "version": "1.0",
  "origin": "library/ubuntu:latest@https://registry-1.docker.io/v2",
  "layers": [
    {{
      "digest": "{A}",
      "url": "cvmfs://test.cern.ch/{A}"
    }},
    {{
      "digest": "{B}",
      "url": "cvmfs://test.cern.ch/layers/{B}"
    }}
  ]
}}
""".encode()


def parse(document: object) -> ThinDescriptor:
    return ThinDescriptor.parse(json.dumps(document).encode(), where="image x")


def layer(**fields: object) -> dict[str, object]:
    return {"digest": A, "url": f"cvmfs://test.cern.ch/{A}"} | fields


class TestLayerUrl:
    @pytest.mark.parametrize("path", [A, f"layers/{A}", f"a.b/c-d/_e/{A}", f".layers/aa/{A}/layerfs"])
    def test_accepts_what_some_publisher_writes(self, path: str) -> None:
        url = LayerUrl(f"cvmfs://test.cern.ch/{path}")
        assert (url.repository, url.path, url.digest) == ("test.cern.ch", path, A)
        assert url.has_foreign_layout == path.endswith("/layerfs")
        for again in (copy.deepcopy(url), pickle.loads(pickle.dumps(url))):  # noqa: S301 - our own bytes
            assert (again, again.path, again.digest) == (url, url.path, url.digest)

    @pytest.mark.parametrize("layout", LayerLayout)
    def test_of_the_suites_own(self, layout: LayerLayout) -> None:
        url = LayerUrl.of(RepositoryName("test.cern.ch"), A, layout)
        assert LayerUrl(str(url)).path == layout.path(A)

    @pytest.mark.parametrize(
        ("value", "says"),
        [
            ("", "has the form cvmfs://REPOSITORY/PATH"),
            (f"http://test.cern.ch/{A}", "has the form"),
            (f"CVMFS://test.cern.ch/{A}", "has the form"),
            (f"/cvmfs/test.cern.ch/{A}", "has the form"),
            (f"cvmfs:///{A}", "not a repository name"),
            (f"cvmfs://../{A}", "not a repository name"),
            (f"cvmfs://user@test.cern.ch/{A}", "not a repository name"),
            (f"cvmfs://test.cern.ch:80/{A}", "not a repository name"),
            ("cvmfs://test.cern.ch", "by its digest"),
            ("cvmfs://test.cern.ch/", "by its digest"),
            (f"cvmfs://test.cern.ch/{A}/", "by its digest"),
            (f"cvmfs://test.cern.ch/{A}/etc", "by its digest"),
            (f"cvmfs://test.cern.ch/{A}\n", "by its digest"),
            (f"cvmfs://test.cern.ch/{A}?x", "by its digest"),
            ("cvmfs://test.cern.ch/layerfs", "by its digest"),
            (f"cvmfs://test.cern.ch/../{A}", "holds letters"),
            (f"cvmfs://test.cern.ch/./{A}", "holds letters"),
            (f"cvmfs://test.cern.ch//{A}", "holds letters"),
            (f"cvmfs://test.cern.ch/%2e%2e/{A}", "holds letters"),
            (f"cvmfs://test.cern.ch/a b/{A}", "holds letters"),
            (f"cvmfs://test.cern.ch/a:b/{A}", "holds letters"),
            (f"cvmfs://test.cern.ch/{'x' * 256}/{A}", "holds letters"),
            (f"cvmfs://test.cern.ch/{A}/layerfs", "has .layers/XX/DIGEST before it"),
            (f"cvmfs://test.cern.ch/.layers/bb/{A}/layerfs", "has .layers/XX/DIGEST before it"),
            (f"cvmfs://test.cern.ch/../.layers/aa/{A}/layerfs", "has .layers/XX/DIGEST before it"),
        ],
    )
    def test_refuses(self, value: str, says: str) -> None:
        with pytest.raises(InvalidValueError, match=says):
            LayerUrl(value)


def test_the_published_form_survives_to_the_byte() -> None:
    descriptor = ThinDescriptor.parse(PUBLISHED, where="image x")
    assert descriptor.encode() == PUBLISHED
    assert [each.id for each in descriptor.layers] == [A, B]
    assert descriptor.layers[1].location.path == f"layers/{B}"


def test_every_optional_field_survives() -> None:
    document = {
        "version": "1.0",
        "min_version": "1.0",
        "origin": "o",
        "layers": [layer(size=5, nothing=None)],
        "comment": "\u00fcber\ntwo lines",
        "later": {"x": [1, None, {"y": None}], "z": 1.5},
        "null": None,
    }
    descriptor = parse(document)
    assert json.loads(descriptor.encode()) == document
    assert ThinDescriptor.parse(descriptor.encode(), where="again") == descriptor


def test_one_made_here_is_one_that_is_read() -> None:
    descriptor = ThinDescriptor.of(ThinLayer(digest=A, url=f"cvmfs://test.cern.ch/{A}"))
    assert json.loads(descriptor.encode()) == {"version": "1.0", "layers": [layer()]}
    assert ThinDescriptor.parse(descriptor.encode(), where="again") == descriptor


def test_none_is_made_without_layers() -> None:
    with pytest.raises(InvalidValueError, match="at least one layer"):
        ThinDescriptor.of()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "document: Input should be an object"),
        (None, "document: Input should be an object"),
        ({}, "version: Field required; layers: Field required"),
        ({"name": "my app"}, "version: Field required; layers: Field required"),
        ({"version": "1.0"}, "layers: Field required"),
        ({"layers": [layer()]}, "version: Field required"),
        ({"version": None, "layers": [layer()]}, "version: Input should be a valid string"),
        ({"version": "1.0", "layers": None}, "layers: Input should be a valid array"),
        ({"version": "1.0", "layers": []}, "layers: Tuple should have at least 1 item"),
        ({"version": "1.0", "layers": {}}, "layers: Input should be a valid array"),
        ({"version": 1.0, "layers": [layer()]}, "version: Input should be a valid string"),
        ({"version": "1", "layers": [layer()]}, "version: .*MAJOR.MINOR"),
        ({"version": "1.0\n", "layers": [layer()]}, "version: .*MAJOR.MINOR"),
        ({"version": "\u0661.0", "layers": [layer()]}, "version: .*MAJOR.MINOR"),
        ({"version": "99999.0", "layers": [layer()]}, "version: .*MAJOR.MINOR"),
        ({"version": "1.0", "min_version": "x", "layers": [layer()]}, "min_version: .*MAJOR.MINOR"),
        ({"version": "2.0", "layers": ["library/ubuntu"]}, r"layers\.0: Input should be an object"),
        ({"version": "1.0", "layers": "x"}, "layers: Input should be a valid array"),
        (
            {"version": "1.0", "layers": [{}]},
            r"layers\.0\.digest: Field required; layers\.0\.url: Field required",
        ),
        ({"version": "1.0", "layers": [layer(), None]}, r"layers\.1: Input should be an object"),
        ({"version": "1.0", "layers": [layer(digest=A.upper())]}, r"layers\.0\.digest: .*not a sha256 digest"),
        ({"version": "1.0", "layers": [layer(digest=B)]}, r"layers\.0: .*has the URL of another layer"),
        ({"version": "1.0", "layers": [layer(), layer(url="cvmfs://x/y")]}, r"layers\.1\.url: .*by its digest"),
        ({"version": "1.0", "layers": [layer()], "origin": 5}, "origin: Input should be a valid string"),
    ],
)
def test_what_is_an_ordinary_file(document: object, says: str) -> None:
    with pytest.raises(NotADescriptorError, match=says) as caught:
        parse(document)
    assert str(caught.value).startswith("image x: thin.json is not a thin image descriptor: ")


_WITH = b'{"version": "1.0", "layers": [{"digest": "%s", "url": "cvmfs://test.cern.ch/%s"}], %%s}' % (
    A.encode(),
    A.encode(),
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        PUBLISHED + b"{}",
        PUBLISHED.decode().encode("utf-16"),
        b"\xef\xbb\xbf" + PUBLISHED,
        b"[" * 100_000,
        b"NaN",
        _WITH % b'"comment": "\\ud800"',
        _WITH % b'"comment": "\xe9"',
        _WITH % b'"other": NaN',
        _WITH % b'"other": -Infinity',
        _WITH % b'"version": "1.0"',
        _WITH % b'"layers": []',
        _WITH % b'"other": {"a": {"b": 1, "b": 1}}',
        _WITH % (b'"other": ' + b"[" * 100_000 + b"]" * 100_000),
        _WITH % (b'"other": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        _WITH % (b'"other": ' + b"9" * 100_000),
    ],
)
def test_what_is_no_json_is_an_ordinary_file(content: bytes) -> None:
    with pytest.raises(NotADescriptorError, match=r"image x: thin\.json is not a thin image descriptor: document: "):
        ThinDescriptor.parse(content, where="image x")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"version": "2.0"}, r"needs version 2\.0 of the form, this program reads 1\.0: upgrade it"),
        ({"version": "0.9"}, r"needs version 0\.9"),
        ({"version": "1.5", "min_version": "1.1"}, r"needs version 1\.1"),
        ({"version": "1.0", "layers": [layer()] * (LAYER_LIMIT + 1)}, "cannot have 501 layers, the kernel stacks 500"),
    ],
)
def test_a_descriptor_that_cannot_be_used_is_no_ordinary_file(document: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidValueError, match=says) as caught:
        parse({"layers": [layer()]} | document)
    assert not isinstance(caught.value, NotADescriptorError)
    assert str(caught.value).startswith("image x: thin.json")


def test_a_newer_minor_version_can_be_read_unless_it_says_otherwise() -> None:
    assert parse({"version": "1.7", "layers": [layer()]}).version == "1.7"
    assert parse({"version": "1.7", "min_version": "1.0", "layers": [layer()]}).min_version == "1.0"


def test_no_more_is_read_than_a_descriptor_can_have() -> None:
    with pytest.raises(NotADescriptorError, match="is larger than 1048576 bytes"):
        ThinDescriptor.parse(b" " * (DESCRIPTOR_LIMIT + 1), where="image x")


def test_a_commit_puts_layers_on_top() -> None:
    descriptor = ThinDescriptor.parse(PUBLISHED, where="image x")
    top = ThinLayer(digest=A, url=LayerUrl.of(RepositoryName("r.ch"), A, LayerLayout.DUCC))
    added = descriptor.with_layers(top, top)
    assert added.layers == (*descriptor.layers, top, top)
    assert added.origin == descriptor.origin
    assert len(descriptor.layers) == 2
    with pytest.raises(InvalidValueError, match="cannot have 501 layers"):
        ThinDescriptor.of(*[top] * 501)
