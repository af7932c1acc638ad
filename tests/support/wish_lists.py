"""Wish lists for tests."""

from services.converter.model import WishList
from services.converter.wishlist.problems import Reading
from services.converter.wishlist.reading import read_wish_list

__all__ = ["DIGEST", "FIFTY", "SOURCE", "problems_of", "wishes_of"]

SOURCE = "list.yaml"
DIGEST = "sha256:" + "0123456789abcdef" * 4

_HUB = [
    *("library/centos:centos7", "engineren/ilcsoft:test", "uegede/weather:latest", "ville761/af2:latest"),
    *("dseitova/bars-image:v2", "yesw2000/ml_base:centos7-python38", "library/fedora:latest", "library/debian:12"),
    *("atlas/analysisbase:21.2.85-20190814", "atlas/athanalysis:21.2.85", "rootproject/root:6.28.00-ubuntu22.04"),
    *("rootproject/root:6.32.02-alma9", "cmssw/el7:x86_64", "cmssw/el8:x86_64", "cmssw/el9:x86_64"),
    *("lhcbdev/slc6-build:latest", "opensciencegrid/osgvo-el7:latest", "opensciencegrid/osgvo-el8:latest"),
    *(
        "gitlab/gitlab-runner:alpine",
        "sjones/dune_2x2:v0_1",
        "icecube/icetray:combo-stable",
        "library/python:3.11-slim",
    ),
    *("library/busybox:1.36.1", "nixos/nix:2.18.1", "continuumio/miniconda3:23.5.2-0"),
]
_PUNCH = [
    f"compute4punch/container-stacks/{name}:latest" for name in ("htcondor-wn", "wlcg-wn", "linc-wn", "h4leptons")
]
_PUNCH += [f"compute4punch/container-stacks/{name}" for name in ("astro-ml:latest", "lqcd:1.0", "a1:x", "a2:x", "a3:x")]
_PUNCH += [f"compute4punch/demo.repo/with__underscores-and.dots:{tag}" for tag in ("1", "v1.10", "2024-01-05_rc")]
_QUAY = [f"biocontainers/{name}:1.0--0" for name in ("samtools", "bwa", "star", "bcftools", "fastqc", "multiqc")]
_QUAY += ["condor/htcondor-ce:v23", "fenicsproject/stable:latest", "centos/centos:stream9"]
FIFTY = "\n".join(
    [
        "version: 1",
        "user: cvmfsunpacker",
        "cvmfs_repo: 'unpacked.cern.ch'",
        "output_format: 'https://gitlab-registry.cern.ch/unpacked/sync/$(image)'",
        "input:",
        *(f"    - 'https://registry.hub.docker.com/{image}'" for image in _HUB),
        *(f"    - 'https://gitlab-p4n.aip.de:5005/{image}'" for image in _PUNCH),
        *(f"    - 'https://quay.io/{image}'" for image in _QUAY),
        "    - 'https://ghcr.io/watonomous/actions-runner-image:*'",
        "    - 'https://ghcr.io/example/tool:main'",
        "    - 'https://nvcr.io/nvidia/tensorflow:23.08-tf2-py3'",
        "    - 'https://registry.hub.docker.com/library/centos:centos7'",
        "",
    ]
)
"""A list of DUCC's with fifty entries, made like the largest public one: registries, a port, a wildcard, a double."""


def problems_of(text: str | bytes) -> list[str]:
    """Return the problems of a list as `LINE:COLUMN: SEVERITY: TEXT`."""
    return [str(problem).removeprefix(f"{SOURCE}:") for problem in _read(text).problems]


def wishes_of(text: str | bytes) -> WishList:
    """Return what a list wishes; there must be no error in it."""
    reading = _read(text)
    assert reading.errors == ()
    assert reading.wish_list is not None
    return reading.wish_list


def _read(text: str | bytes) -> Reading:
    return read_wish_list(text if isinstance(text, bytes) else text.encode(), SOURCE)
