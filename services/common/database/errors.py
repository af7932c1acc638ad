"""What errors of databases say."""

from sqlalchemy.exc import DBAPIError

__all__ = ["first_line"]


def first_line(error: BaseException | None) -> str:
    """Return the first line of what an error says, in the driver's own words: what SQLAlchemy adds is a statement."""
    return str(error.orig if isinstance(error, DBAPIError) else error).partition("\n")[0]
