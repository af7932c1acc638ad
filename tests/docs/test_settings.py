from pathlib import Path

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.converter.settings import ConverterSettings
from services.docker2cvmfs.settings import Docker2CvmfsSettings
from services.graphdriver.settings import GraphDriverSettings
from services.publisher.settings import PublisherSettings
from services.registry.settings import RegistrySettings
from services.repository.native.storage.settings import RepositoryStoreSettings
from services.setup.settings import SetupSettings
from services.snapshotter.settings import SnapshotterSettings
from services.thinctl.settings import ThinctlSettings
from tests.support.documentation import settings_discrepancies

DOCUMENT = Path(__file__).parents[2] / "docs" / "SETTINGS.md"


def test_the_documented_settings_are_those_of_the_code() -> None:
    groups = (
        GraphDriverSettings,
        PublisherSettings,
        ThinctlSettings,
        ConverterSettings,
        SetupSettings,
        SnapshotterSettings,
        Docker2CvmfsSettings,
        ObjectStoreSettings,
        RegistrySettings,
        RepositoryStoreSettings,
        ArchiveLimits,
    )

    assert settings_discrepancies(DOCUMENT, groups) == []
