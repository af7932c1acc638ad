"""`converter run` and `converter once`."""

import asyncio
from typing import Any

import click

from services.common.command_line import run_async, write_document
from services.common.errors import SuiteError
from services.common.logs import configure_logging
from services.converter.errors import RoundFailedError
from services.converter.process import run_forever, run_once
from services.converter.rounds.rounds import OnceResult
from services.converter.settings import ConverterSettings
from services.registry.settings import RegistrySettings

__all__ = ["once", "run"]


def _settings() -> ConverterSettings:
    settings = ConverterSettings.load()
    configure_logging(level=settings.log_level, output=settings.log_format)
    return settings


@click.command()
def run() -> None:
    """Keep repositories up to date until SIGTERM: poll, take webhooks, ask the publishers, push thin images, remove.

    Settings are CONVERTER_* and REGISTRY_* environment variables.
    """
    failure: SuiteError | None = None
    try:
        asyncio.run(run_forever(_settings(), RegistrySettings.load().options()))
    except* SuiteError as errors:
        failure = _first(errors)  # what is raised here would be in a group again
    if failure is not None:
        raise failure


@click.command(epilog="Example: CONVERTER_WISH_LISTS=recipe.yaml converter once --dry-run")
@click.option("--dry-run", is_flag=True, help="Ask for nothing, push nothing, remove nothing: only log it.")
@click.option("--json", "as_json", is_flag=True, help="Write what came of it as one JSON document.")
def once(*, dry_run: bool, as_json: bool) -> None:
    """Look at every wish once, see all of it through, and remove what is due to be.

    It fails if a registry could not be asked, an image not published or pushed, or more was due to be removed than may
    be. Settings are CONVERTER_* and REGISTRY_* environment variables.
    """
    settings = _settings()
    if dry_run:
        settings = settings.model_copy(update={"dry_run": True})
    result = run_async(run_once(settings, RegistrySettings.load().options()))
    if as_json:
        write_document(_document(result))
    if not result.is_success:
        raise RoundFailedError(_summary(result))


def _document(result: OnceResult) -> dict[str, Any]:
    return {
        "success": result.is_success,
        "problems": list(result.problems),
        "not_asked": result.not_asked,
        "not_published": result.not_published,
        "not_pushed": result.not_pushed,
        "removals": {
            "due": [
                {"name": each.name, "repository": each.repository, "why": each.why} for each in result.retention.due
            ],
            "removed": result.retention.removed,
            "failed": result.retention.failed,
            "withheld": result.retention.withheld,
        },
    }


def _summary(result: OnceResult) -> str:
    parts = [
        f"{count} {what}"
        for count, what in (
            (len(result.problems), "wishes or lists could not be looked into wholly"),
            (result.not_asked, "images could not be asked for"),
            (result.not_published, "images could not be published"),
            (result.not_pushed, "thin images could not be pushed"),
            (result.retention.failed, "images could not be removed"),
            (len(result.retention.due) if result.retention.withheld else 0, "images are more than a run may remove"),
        )
        if count
    ]
    return f"{', '.join(parts)}: the log says why"


def _first(errors: BaseExceptionGroup[SuiteError]) -> SuiteError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, SuiteError):
        raise TypeError(f"no error of the suite's: {error!r}")
    return error
