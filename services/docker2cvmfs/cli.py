"""The command line."""

import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from services.common.allocator import limit_arenas
from services.common.command_line import run_async, write_document, write_output
from services.common.image_outputs import outputs_of_words
from services.common.layout import LayerLayout
from services.common.logs import LogFormat, LogLevel, configure_logging
from services.common.repository_name import RepositoryName
from services.docker2cvmfs import commands
from services.docker2cvmfs.delivery import Destination, DockerFile, Load, OciFile, Push
from services.docker2cvmfs.exit_codes import EXIT_CODES
from services.docker2cvmfs.options import (
    ALL_PLATFORMS,
    JSON,
    LAYOUT,
    OUTPUTS,
    PLATFORM,
    PUBLISHER,
    REGISTRY,
    VIA,
    WAIT,
    conversion_of,
    need_publisher,
    publisher_of,
    way_of,
    way_with,
)
from services.docker2cvmfs.status import status_document, status_table
from services.registry.reference import ImageReference

__all__ = ["cli"]

_STANDARD_OUTPUT: Final = Path("-")
_EPILOG: Final = f"""\
\b
Examples:
  docker2cvmfs thin library/ubuntu:latest test.cern.ch
  docker2cvmfs thin --layout ducc library/ubuntu:latest unpacked.cern.ch
  docker2cvmfs make-thin ubuntu:24.04 test.cern.ch --publisher http://stratum0:8480 --load --tag ubuntu:thin
  docker2cvmfs make-thin ubuntu:24.04 test.cern.ch --all-platforms --push --tag registry.example.org/ubuntu:thin
  docker2cvmfs status ubuntu:24.04 test.cern.ch --publisher http://stratum0:8480

status, and publish and make-thin through the bucket, take the object store from LAYER_STORE_ENDPOINT,
LAYER_STORE_BUCKET, LAYER_STORE_ACCESS_KEY[_FILE] and LAYER_STORE_SECRET_KEY[_FILE] in the environment.
With DOCKER2CVMFS_TOKEN[_FILE] the publisher fetches images by itself. Users and passwords of registries
come from Docker's configuration (`docker login`), proxies from the environment.

{EXIT_CODES}"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
def cli() -> None:
    """Make thin images of the images in a registry.

    A thin image holds one small file, which names layers that live in a CVMFS repository.
    """
    configure_logging(level=LogLevel.WARNING, output=LogFormat.CONSOLE)
    limit_arenas()


@cli.command(epilog="Example: docker2cvmfs thin library/ubuntu:latest test.cern.ch")
@REGISTRY
@click.argument("repository")
@PLATFORM
@LAYOUT
@JSON
def thin(image: str, repository: str, platform: str | None, layout: str, as_json: bool, **registry: Any) -> None:  # noqa: ANN401, FBT001
    """Print the descriptor of the thin image; nothing is transferred."""
    conversion = conversion_of(image, platform=platform, **registry)
    (descriptor,) = run_async(commands.descriptors(conversion, RepositoryName(repository), LayerLayout(layout)))
    del as_json  # the descriptor is JSON
    write_output(descriptor.encode())


@cli.command(epilog="Example: docker2cvmfs manifest ubuntu:24.04")
@REGISTRY
@JSON
def manifest(image: str, as_json: bool, **registry: Any) -> None:  # noqa: ANN401, FBT001
    """Print the manifest, or the index, as the registry has it; --json adds media type and digest."""
    raw = run_async(commands.manifest(conversion_of(image, **registry)))
    if as_json:
        write_document({"media_type": raw.media_type, "digest": raw.digest.oci, "manifest": json.loads(raw.content)})
    else:
        write_output(raw.content)


@cli.command(epilog="Example: docker2cvmfs config ubuntu:24.04 --platform linux/arm64")
@REGISTRY
@PLATFORM
@JSON
def config(image: str, platform: str | None, as_json: bool, **registry: Any) -> None:  # noqa: ANN401, FBT001
    """Print the image's configuration as the registry has it; --json adds its digest and platform."""
    (found,) = run_async(commands.images(conversion_of(image, platform=platform, **registry)))
    if as_json:
        document = {
            "digest": found.config_digest.oci,
            "platform": str(found.platform),
            "config": json.loads(found.config),
        }
        write_document(document)
    else:
        write_output(found.config)


@cli.command(epilog="Example: docker2cvmfs pull ubuntu:24.04 layers/")
@REGISTRY
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path())
@PLATFORM
@JSON
def pull(image: str, directory: Path, platform: str | None, as_json: bool, **registry: Any) -> None:  # noqa: ANN401, FBT001
    """Write the layer archives to a directory, verified; what is there already is not fetched again."""
    paths = run_async(commands.pull_layers(conversion_of(image, platform=platform, **registry), directory))
    if as_json:
        write_document({"layers": [str(path) for path in paths]})
    else:
        write_output("".join(f"{path}\n" for path in paths))


@cli.command(epilog="Example: docker2cvmfs publish ubuntu:24.04 test.cern.ch --publisher http://stratum0:8480")
@REGISTRY
@click.argument("repository")
@PLATFORM
@ALL_PLATFORMS
@PUBLISHER
@VIA
@OUTPUTS
@WAIT
@JSON
def publish(
    image: str,
    repository: str,
    *,
    platform: str | None,
    all_platforms: bool,
    publisher: str | None,
    via: str | None,
    outputs: tuple[str, ...],
    no_wait: bool,
    timeout: float,
    as_json: bool,
    **registry: Any,  # noqa: ANN401
) -> None:
    """Have the publisher fetch the layers, or bring them to the object store, and wait until they are published."""
    publisher = publisher_of(publisher)
    need_publisher(publisher, no_wait=no_wait)
    chosen = outputs_of_words(outputs)
    conversion = conversion_of(image, platform=platform, all_platforms=all_platforms, **registry)
    published = run_async(
        commands.publish(
            conversion,
            RepositoryName(repository),
            way=way_with(way_of(publisher, via), chosen),
            timeout=None if no_wait else timeout,
            outputs=chosen,
        )
    )
    if as_json:
        write_document(published.document())
    else:
        write_output(f"{published.summary()}\n")


@cli.command(
    "make-thin",
    epilog="Example: docker2cvmfs make-thin ubuntu:24.04 test.cern.ch --publisher http://stratum0:8480 --load",
)
@REGISTRY
@click.argument("repository")
@PLATFORM
@ALL_PLATFORMS
@LAYOUT
@PUBLISHER
@VIA
@WAIT
@click.option("--no-publish", is_flag=True, help="Publish nothing: the repository has the layers already.")
@click.option("--tag", metavar="NAME", help="Name of the thin image [default: the image's, its tag with -thin].")
@click.option("--push", is_flag=True, help="Push it to the registry that --tag names.")
@click.option("--load", is_flag=True, help="Load it into the Docker engine.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Write it to a file, or to the standard output (-).",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["docker-archive", "oci-archive"]),
    default="docker-archive",
    show_default=True,
    help="Form of that file.",
)
@JSON
def make_thin(  # noqa: PLR0913 - one for every option
    image: str,
    repository: str,
    *,
    platform: str | None,
    all_platforms: bool,
    layout: str,
    publisher: str | None,
    via: str | None,
    no_wait: bool,
    timeout: float,
    no_publish: bool,
    tag: str | None,
    push: bool,
    load: bool,
    output: Path | None,
    output_format: str,
    as_json: bool,
    **registry: Any,  # noqa: ANN401
) -> None:
    """Publish the layers, then make the thin image, with all of the original's configuration.

    With --no-publish a repository that another converter fills is used as it is (unpacked.cern.ch: --layout ducc).
    """
    if [push, load, output is not None].count(True) != 1:
        raise click.UsageError("give one of --push, --load and --output")
    if push and tag is None:
        raise click.UsageError("--push needs --tag, which says where to")
    if all_platforms and (load or (output is not None and output_format == "docker-archive")):
        raise click.UsageError("--all-platforms needs --push or --format oci-archive: nothing else holds an index")
    if output == _STANDARD_OUTPUT:
        _check_pipe(as_json=as_json)
    publisher = publisher_of(publisher)
    need_publisher(publisher, no_wait=no_wait or no_publish)
    conversion = conversion_of(image, platform=platform, all_platforms=all_platforms, **registry)
    name = tag or conversion.thin_name
    destination: Destination
    if push:
        destination = Push(_named(name))
    elif load:
        destination = Load(_tagged(name))
    else:
        destination = _file(name, output, output_format)
    what = (conversion, RepositoryName(repository), LayerLayout(layout), destination)
    if no_publish:
        made = run_async(commands.make_thin_of_published(*what))
    else:
        made = run_async(commands.make_thin(*what, way=way_of(publisher, via), timeout=None if no_wait else timeout))
    if as_json:
        write_document(made.document())
    elif output == _STANDARD_OUTPUT:
        sys.stderr.write(f"{made.summary()}\n")
    else:
        write_output(f"{made.summary()}\n")


def _check_pipe(*, as_json: bool) -> None:
    """Make sure that the standard output is for an archive alone."""
    if as_json:
        raise click.UsageError("--json and --output - would both write to the standard output")
    if sys.stdout.isatty():
        raise click.UsageError("--output - would write an archive to the terminal: lead it to a program or a file")


def _named(name: str) -> ImageReference:
    reference = ImageReference.parse(name)
    if reference.digest is not None:
        raise click.UsageError("--tag takes no digest: it follows from the image")
    return reference


def _tagged(name: str) -> str:
    """Return a name as engines load it: they take none without a tag."""
    tag = _named(name).tag
    return name if name.endswith(f":{tag}") else f"{name}:{tag}"


def _file(name: str, output: Path | None, output_format: str) -> DockerFile | OciFile:
    path = None if output == _STANDARD_OUTPUT else output
    return OciFile(_tagged(name), path) if output_format == "oci-archive" else DockerFile(_tagged(name), path)


@cli.command(epilog="Example: docker2cvmfs status ubuntu:24.04 test.cern.ch --publisher http://stratum0:8480")
@REGISTRY
@click.argument("repository")
@PLATFORM
@ALL_PLATFORMS
@PUBLISHER
@JSON
def status(
    image: str,
    repository: str,
    *,
    platform: str | None,
    all_platforms: bool,
    publisher: str | None,
    as_json: bool,
    **registry: Any,  # noqa: ANN401
) -> None:
    """Show where each layer is, and how much a publication would transfer."""
    publisher = publisher_of(publisher)
    if publisher is None:
        raise click.UsageError("--publisher is missing: it says which layers are in the repository")
    conversion = conversion_of(image, platform=platform, all_platforms=all_platforms, **registry)
    places = run_async(commands.locate_layers(conversion, RepositoryName(repository), publisher=publisher))
    if as_json:
        write_document(status_document(repository, places))
    else:
        write_output(status_table(repository, places))
