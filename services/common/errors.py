"""Root of the suite's exceptions.

Tree (each module documents its own branch)::

    SuiteError
    ├── InvalidValueError          something from outside is not of its form (digest, name, URL, descriptor, sidecar)
    ├── LockError                  services.common.lock_file: another process holds a lock file
    ├── ArchiveError               services.common.archive: a layer archive breaks a rule or a limit
    ├── ObjectStoreError           services.common.object_store: the store failed or refused
    ├── PublisherApiError          services.common.publisher_api: a publisher does not answer, or refused
    ├── SocketError                services.common.unix_socket: a socket cannot be listened on
    ├── StateInUseError            services.common.only_process: another process uses a directory of state
    ├── NodeError                  services.node: layers, unions, commits, repositories on a worker node
    ├── RepositoryError            services.repository: a repository failed
    ├── LayerRefusedError          services.repository: a layer cannot be published
    ├── RegistryError              services.registry: a registry failed or refused
    ├── HintsError                 services.converter.hints: webhooks cannot be taken
    ├── ProvenanceError            services.converter.provenance: an image is not signed as a policy wants it
    ├── GraphDriverError           services.graphdriver: the plugin failed
    ├── SnapshotterError           services.snapshotter: a request of containerd's cannot be served
    ├── PublisherError             services.publisher: journal, notification
    ├── DisagreementError          services.thinctl: repository, journal and bucket disagree
    ├── SetupError                 services.setup: the object store cannot be set up
    ├── ConverterError             services.converter: wish lists, rounds, webhooks
    └── Docker2CvmfsError          services.docker2cvmfs: the output of a conversion
"""

__all__ = ["InvalidValueError", "SuiteError"]


class SuiteError(Exception):
    """Base of every error that the suite raises on purpose; its text is fit to be shown to a user."""


class InvalidValueError(SuiteError, ValueError):
    """A value from outside is not of the form it must have; the text names the value and the rule."""
