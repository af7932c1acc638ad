"""Changing the repository key: the certificate of the former one leaves the whitelist, and the head with it.

Clients believe a head whose certificate the whitelist names. So before a certificate is taken from the whitelist, a
head that it belongs to is signed anew, with the same revision and time: clients that know the revision pass it over.
"""

from services.repository.native.access import RepositoryAccess
from services.repository.native.records import REFLOG, ObjectKind
from services.repository.native.trust.keys import Certificate
from services.repository.native.trust.renewal import WhitelistState

__all__ = ["drop_other_certificates", "install_whitelist", "renew_whitelist"]


def renew_whitelist(access: RepositoryAccess) -> WhitelistState:
    """Sign the whitelist anew (blocking), and mend a head that replicas cannot copy; it can be killed and repeated.

    Raises
    ------
    TrustError
        The master key is not here.
    NativeError
        The repository cannot be changed.
    """
    state = access.whitelist.renew()
    access.mend()
    return state


def drop_other_certificates(access: RepositoryAccess) -> WhitelistState:
    """Sign a whitelist that names the present certificate only (blocking); it can be killed and repeated.

    Raises
    ------
    TrustError
        The master key is not here, or the head is signed by a key that nobody knows.
    NativeError
        The repository cannot be changed.
    """
    access.whitelist.renew()  # it names both, so that clients believe whichever head they find
    with access.storage.exclusive():
        _sign_head(access)
        return access.whitelist.renew_alone()


def install_whitelist(access: RepositoryAccess, content: bytes) -> WhitelistState:
    """Take a whitelist that was signed where the master key is (blocking); it can be killed and repeated.

    Raises
    ------
    TrustError
        Clients would not accept it, or the head is signed by a key that nobody knows.
    NativeError
        The repository cannot be changed.
    """
    whitelist = access.whitelist.examine(content)
    if not whitelist.allows(_certificate_of_head(access)):
        with access.storage.exclusive():
            _sign_head(access)
            return access.whitelist.install(content)
    state = access.whitelist.install(content)
    access.mend()
    return state


def _sign_head(access: RepositoryAccess) -> None:
    """Have the present key sign the head, if another one has; mend it otherwise."""
    access.verify()
    manifest = access.repair()
    if not access.head.signs(manifest):
        access.head.replace(manifest, reflog=access.storage.read(REFLOG))


def _certificate_of_head(access: RepositoryAccess) -> Certificate:
    return Certificate.parse(access.get(access.head.read().certificate, ObjectKind.CERTIFICATE))
