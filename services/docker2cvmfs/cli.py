"""The command line."""

import json
from pathlib import Path
from typing import Any, Final

import click

from services.common.allocator import limit_arenas
from services.common.command_line import NumberRange, bundle, run_async, write_document, write_output
from services.common.layout import LayerLayout
from services.common.logs import LogFormat, LogLevel, configure_logging
from services.common.repository_name import RepositoryName
from services.docker2cvmfs import commands
from services.docker2cvmfs.commands import Conversion, Destination
from services.docker2cvmfs.exit_codes import EXIT_CODES
from services.docker2cvmfs.settings import Docker2CvmfsSettings
from services.registry.options import RegistryOptions
from services.registry.platform import Platform
from services.registry.reference import ImageReference

__all__ = ["cli"]

_EPILOG: Final = f"""\
\b
Examples:
  docker2cvmfs thin library/ubuntu:latest test.cern.ch
  docker2cvmfs thin --layout ducc library/ubuntu:latest unpacked.cern.ch
  docker2cvmfs make-thin ubuntu:24.04 test.cern.ch --publisher http://stratum0:8480 --load --tag ubuntu:thin
  docker2cvmfs make-thin ubuntu:24.04 test.cern.ch --all-platforms --push --tag registry.example.org/ubuntu:thin
  docker2cvmfs status ubuntu:24.04 test.cern.ch --publisher http://stratum0:8480

publish, make-thin and status take the object store from LAYER_STORE_ENDPOINT, LAYER_STORE_BUCKET,
LAYER_STORE_ACCESS_KEY[_FILE] and LAYER_STORE_SECRET_KEY[_FILE] in the environment. Users and passwords
of registries come from Docker's configuration (`docker login`), proxies from the environment.

{EXIT_CODES}"""


_JSON = click.option("--json", "as_json", is_flag=True, help="Write one JSON document, for scripts.")
_REGISTRY = bundle(
    click.argument("image"),
    click.option("--insecure", is_flag=True, help="Speak plain HTTP to the registries."),
    click.option(
        "--insecure-registry",
        "insecure_registries",
        multiple=True,
        metavar="HOST[:PORT]",
        help="Speak plain HTTP to this registry alone; may be given again.",
    ),
    click.option(
        "--ca-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Certificates to trust as well."
    ),
)
_PLATFORM = click.option(
    "--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of several [default: this machine's]."
)
_ALL = click.option("--all-platforms", is_flag=True, help="The images for all platforms.")
_LAYOUT = click.option(
    "--layout",
    type=click.Choice([layout.value for layout in LayerLayout]),
    default=LayerLayout.FLAT.value,
    show_default=True,
    help="Paths that the descriptor names; ducc is unpacked.cern.ch's.",
)
_PUBLISHER = bundle(
    click.option(
        "--publisher",
        metavar="URL",
        help="Where the repository's publisher is [default: DOCKER2CVMFS_PUBLISHER in the environment].",
    ),
)
_WAIT = bundle(
    click.option("--no-wait", is_flag=True, help="End when the layers are uploaded; the publisher goes on by itself."),
    click.option(
        "--timeout",
        type=NumberRange(min=0, min_open=True),
        default=3600,
        show_default=True,
        help="Longest wait for the publisher, in seconds.",
    ),
)


def _conversion(
    image: str,
    *,
    insecure: bool,
    insecure_registries: tuple[str, ...],
    ca_file: Path | None,
    platform: str | None = None,
    all_platforms: bool = False,
) -> Conversion:
    if platform is not None and all_platforms:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    wanted = Platform.local() if platform is None else Platform.parse(platform)
    return Conversion(
        reference=ImageReference.parse(image),
        platform=None if all_platforms else wanted,
        options=RegistryOptions(insecure=insecure, insecure_registries=frozenset(insecure_registries), ca_file=ca_file),
    )


def _publisher(option: str | None) -> str | None:
    configured = Docker2CvmfsSettings.load().publisher
    return option or (None if configured is None else str(configured))


def _need_publisher(publisher: str | None, *, no_wait: bool = False) -> None:
    if publisher is None and not no_wait:
        raise click.UsageError("--publisher is missing: it says when the layers are there")


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
def cli() -> None:
    """Make thin images of the images in a registry.

    A thin image holds one small file, which names layers that live in a CVMFS repository.
    """
    configure_logging(level=LogLevel.WARNING, output=LogFormat.CONSOLE)
    limit_arenas()


@cli.command(epilog="Example: docker2cvmfs thin library/ubuntu:latest test.cern.ch")
@_REGISTRY
@click.argument("repository")
@_PLATFORM
@_LAYOUT
@_JSON
def thin(image: str, repository: str, platform: str | None, layout: str, as_json: bool, **registry: Any) -> None:  # noqa: ANN401, FBT001
    """Print the descriptor of the thin image; nothing is transferred."""
    conversion = _conversion(image, platform=platform, **registry)
    (descriptor,) = run_async(commands.descriptors(conversion, RepositoryName(repository), LayerLayout(layout)))
    del as_json  # the descriptor is JSON
    write_output(descriptor.encode())


@cli.command(epilog="Example: docker2cvmfs manifest ubuntu:24.04")
@_REGISTRY
@_JSON
def manifest(image: str, as_json: bool, **registry: Any) -> None:  # noqa: ANN401, FBT001
    """Print the manifest, or the index, as the registry has it; --json adds media type and digest."""
    raw = run_async(commands.manifest(_conversion(image, **registry)))
    if as_json:
        write_document({"media_type": raw.media_type, "digest": raw.digest.oci, "manifest": json.loads(raw.content)})
    else:
        write_output(raw.content)


@cli.command(epilog="Example: docker2cvmfs config ubuntu:24.04 --platform linux/arm64")
@_REGISTRY
@_PLATFORM
@_JSON
def config(image: str, platform: str | None, as_json: bool, **registry: Any) -> None:  # noqa: ANN401, FBT001
    """Print the image's configuration as the registry has it; --json adds its digest and platform."""
    (found,) = run_async(commands.images(_conversion(image, platform=platform, **registry)))
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
@_REGISTRY
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path())
@_PLATFORM
@_JSON
def pull(image: str, directory: Path, platform: str | None, as_json: bool, **registry: Any) -> None:  # noqa: ANN401, FBT001
    """Write the layer archives to a directory, verified; what is there already is not fetched again."""
    paths = run_async(commands.pull_layers(_conversion(image, platform=platform, **registry), directory))
    if as_json:
        write_document({"layers": [str(path) for path in paths]})
    else:
        write_output("".join(f"{path}\n" for path in paths))


@cli.command(epilog="Example: docker2cvmfs publish ubuntu:24.04 test.cern.ch --publisher http://stratum0:8480")
@_REGISTRY
@click.argument("repository")
@_PLATFORM
@_ALL
@_PUBLISHER
@_WAIT
@_JSON
def publish(
    image: str,
    repository: str,
    *,
    platform: str | None,
    all_platforms: bool,
    publisher: str | None,
    no_wait: bool,
    timeout: float,
    as_json: bool,
    **registry: Any,  # noqa: ANN401
) -> None:
    """Bring the layers to the object store, and wait until the publisher has published them."""
    publisher = _publisher(publisher)
    _need_publisher(publisher, no_wait=no_wait)
    conversion = _conversion(image, platform=platform, all_platforms=all_platforms, **registry)
    published = run_async(
        commands.publish(
            conversion, RepositoryName(repository), publisher=publisher, timeout=None if no_wait else timeout
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
@_REGISTRY
@click.argument("repository")
@_PLATFORM
@_ALL
@_LAYOUT
@_PUBLISHER
@_WAIT
@click.option("--no-publish", is_flag=True, help="Publish nothing: the repository has the layers already.")
@click.option("--tag", metavar="NAME", help="Name of the thin image [default: the image's, its tag with -thin].")
@click.option("--push", is_flag=True, help="Push it to the registry that --tag names.")
@click.option("--load", is_flag=True, help="Load it into the Docker engine.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to a file.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["docker-archive", "oci-archive"]),
    default="docker-archive",
    show_default=True,
    help="Form of that file.",
)
@_JSON
def make_thin(  # noqa: PLR0913 - one for every option
    image: str,
    repository: str,
    *,
    platform: str | None,
    all_platforms: bool,
    layout: str,
    publisher: str | None,
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
    publisher = _publisher(publisher)
    _need_publisher(publisher, no_wait=no_wait or no_publish)
    conversion = _conversion(image, platform=platform, all_platforms=all_platforms, **registry)
    name = tag or conversion.thin_name
    destination: Destination
    if push:
        destination = commands.Push(_named(name))
    elif load:
        destination = commands.Load(_tagged(name))
    elif output_format == "oci-archive":
        destination = commands.OciFile(_tagged(name), _given(output))
    else:
        destination = commands.DockerFile(_tagged(name), _given(output))
    what = (conversion, RepositoryName(repository), LayerLayout(layout), destination)
    if no_publish:
        made = run_async(commands.make_thin_of_published(*what))
    else:
        made = run_async(commands.make_thin(*what, publisher=publisher, timeout=None if no_wait else timeout))
    if as_json:
        write_document(made.document())
    else:
        write_output(f"{made.summary()}\n")


def _named(name: str) -> ImageReference:
    reference = ImageReference.parse(name)
    if reference.digest is not None:
        raise click.UsageError("--tag takes no digest: it follows from the image")
    return reference


def _tagged(name: str) -> str:
    """Return a name as engines load it: they take none without a tag."""
    tag = _named(name).tag
    return name if name.endswith(f":{tag}") else f"{name}:{tag}"


def _given(path: Path | None) -> Path:
    if path is None:
        raise click.UsageError("--output is missing")
    return path


@cli.command(epilog="Example: docker2cvmfs status ubuntu:24.04 test.cern.ch --publisher http://stratum0:8480")
@_REGISTRY
@click.argument("repository")
@_PLATFORM
@_ALL
@_PUBLISHER
@_JSON
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
    publisher = _publisher(publisher)
    if publisher is None:
        raise click.UsageError("--publisher is missing: it says which layers are in the repository")
    conversion = _conversion(image, platform=platform, all_platforms=all_platforms, **registry)
    places = run_async(commands.locate_layers(conversion, RepositoryName(repository), publisher=publisher))
    if as_json:
        write_document(commands.status_document(repository, places))
    else:
        write_output(commands.status_table(repository, places))
