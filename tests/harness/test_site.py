from pathlib import Path, PurePosixPath

import pytest

from harness.site import SiteError, loaded_from_elsewhere, rewritten

_README = PurePosixPath("README.md")
_WORKER = PurePosixPath("docs/worker.md")


@pytest.mark.parametrize(
    ("page", "before", "after"),
    [
        (_README, "[a](docs/worker.md#set-up), [b](LICENSE)", "[a](worker.md#set-up), [b](LICENSE.txt)"),
        (_README, "[a](CHANGELOG.md) and [b](#set-it-up)", "[a](CHANGELOG.md) and [b](#set-it-up)"),
        (
            _README,
            '<source srcset="docs/dark.svg"><img src="docs/light.svg">',
            '<source srcset="dark.svg"><img src="light.svg">',
        ),
        (_README, "![picture](docs/page.png)", "![picture](page.png)"),
        (_WORKER, "[a](../README.md#a-worker-node), [b](scale.svg)", "[a](index.md#a-worker-node), [b](scale.svg)"),
        (_WORKER, "[a](https://example.org/docs/x) [b](mailto:a@example.org)", None),
        (_README, "`[a](docs/worker.md)`\n```\n[b](docs/worker.md)\n```\n", None),
    ],
)
def test_links_lead_to_the_places_in_the_site(page: PurePosixPath, before: str, after: str | None) -> None:
    assert rewritten(page, before) == (before if after is None else after)


@pytest.mark.parametrize(
    ("link", "reason"), [("../harness/site.py", "does not have"), ("../../x", "out of the repository")]
)
def test_a_link_to_what_the_site_does_not_have_is_refused(link: str, reason: str) -> None:
    with pytest.raises(SiteError, match=rf"docs/worker\.md: the link {link} .*{reason}"):
        rewritten(_WORKER, f"[text]({link})")


def test_what_pages_load_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "whole.html").write_text(
        '<link rel="canonical" href="https://example.org/"><link rel="stylesheet" href="assets/x.css">'
        '<a href="https://example.org/">a link</a><img src="data:image/svg+xml,x"><script src="x.js"></script>'
    )
    (tmp_path / "other.html").write_text(
        '<script src="https://unpkg.com/x"></script><link rel="stylesheet" href="//fonts.example.org/x.css">'
    )
    assert loaded_from_elsewhere(tmp_path) == [
        "other.html: https://unpkg.com/x",
        "other.html: //fonts.example.org/x.css",
    ]
