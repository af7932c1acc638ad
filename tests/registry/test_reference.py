import pytest

from services.common.errors import InvalidValueError
from services.registry.reference import ImageReference

D = "a" * 64
HUB = "https://registry-1.docker.io/v2"


@pytest.mark.parametrize(
    ("text", "name", "api", "repository", "version"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest", HUB, "library/ubuntu", "latest"),
        ("library/ubuntu:24.04", "docker.io/library/ubuntu:24.04", HUB, "library/ubuntu", "24.04"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest", HUB, "library/ubuntu", "latest"),
        ("registry.hub.docker.com/library/fedora", "docker.io/library/fedora:latest", HUB, "library/fedora", "latest"),
        ("index.docker.io/a/b:1", "docker.io/a/b:1", HUB, "a/b", "1"),
        ("registry-1.docker.io/a/b", "docker.io/a/b:latest", HUB, "a/b", "latest"),
        ("localhost/a", "localhost/a:latest", "https://localhost/v2", "a", "latest"),
        ("host:5000/a/b_c/d--e:T-1", "host:5000/a/b_c/d--e:T-1", "https://host:5000/v2", "a/b_c/d--e", "T-1"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "https://[::1]:5000/v2", "a", "latest"),
        ("[2001:db8::1]/a", "[2001:db8::1]/a:latest", "https://[2001:db8::1]/v2", "a", "latest"),
        (f"a.b/c@sha256:{D}", f"a.b/c@sha256:{D}", "https://a.b/v2", "c", f"sha256:{D}"),
        (f"a.b/c:1@sha256:{D}", f"a.b/c:1@sha256:{D}", "https://a.b/v2", "c", f"sha256:{D}"),
        ("HOST/a", "HOST/a:latest", "https://HOST/v2", "a", "latest"),
    ],
)
def test_references_are_read_as_docker_reads_them(
    text: str, name: str, api: str, repository: str, version: str
) -> None:
    reference = ImageReference.parse(text)
    assert (str(reference), reference.api_url, reference.repository, reference.version) == (
        name,
        api,
        repository,
        version,
    )


def test_the_origin_is_the_published_form() -> None:
    assert ImageReference.parse("ubuntu").origin == f"library/ubuntu:latest@{HUB}"
    assert ImageReference.parse(f"ubuntu@sha256:{D}").origin == f"library/ubuntu@sha256:{D}@{HUB}"


def test_names_are_as_long_as_registries_take() -> None:
    longest = "host.example/" + "a" * (255 - len("host.example"))
    assert ImageReference.parse(longest).repository == longest.removeprefix("host.example/")
    with pytest.raises(InvalidValueError, match=r"at most 255 characters.* has 256"):
        ImageReference.parse(longest + "a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not an image reference"),
        ("a" * 2000, "not an image reference"),
        ("https://a.b/c", "has no scheme, write 'a.b/c'"),
        ("Ubuntu", "lower case"),
        ("a//b", "not the name of a repository"),
        ("a.b/", "not the name of a repository"),
        ("a.b/../c", "not the name of a repository"),
        ("a.b/c?d", "not the name of a repository"),
        ("a:" + "t" * 129, "not a tag"),
        ("a:-t", "not a tag"),
        ("a:", "not a tag"),
        ("host:99999/a", "not a port"),
        ("host:0/a", "not a port"),
        ("user@host.b/a", "sha256"),
        ("a.b\n/c", "not the name or address of a registry"),
        ("-a.b/c", "not the name or address of a registry"),
        ("[::zz]/c", "not the name or address of a registry"),
        ("[::1/c", "not the name or address of a registry"),
        ("a@sha512:" + "a" * 128, "only sha256"),
        ("a@sha256:abc", "not a sha256 digest"),
    ],
)
def test_other_texts_are_refused_with_the_rule(text: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        ImageReference.parse(text)
