"""The statements name the tables that the migrations make."""

from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from services.common.database.versions import oldest_of
from services.publisher.journal import migrations
from services.publisher.journal.schema import migrate
from services.publisher.journal.tables import metadata
from services.publisher.journal.version import VERSION
from tests.support.schema import differences


def test_the_tables_are_those_that_statements_name(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'journal.sqlite'}")
    with engine.begin() as connection:
        migrate(connection, journal="the journal")
        assert differences(connection, metadata) == []
    engine.dispose()


def test_the_version_is_that_of_the_last_migration() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert script.get_heads() == [str(VERSION)]


def test_no_version_lets_publishers_work_that_the_one_before_kept_out() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    known = [(int(each.revision), oldest_of(each)) for each in script.walk_revisions()]
    assert all(oldest <= version for version, oldest in known)
    oldest = [oldest for _, oldest in known]
    assert oldest == sorted(oldest, reverse=True)
