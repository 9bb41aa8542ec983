"""Whom HTTPS trusts: the certificate authorities of this host, and those of CA_BUNDLE besides."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import Any

from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

# The words of git's and cargo's libraries (OpenSSL, GnuTLS, curl) for a certificate that they do not accept.
_NOT_ACCEPTED = re.compile(r"SSL certificate problem|server (?:certificate )?verification failed|SSL peer certificate", re.IGNORECASE)
_VARIABLES = ("GIT_SSL_CAINFO", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_USUAL = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def pem(ca_bundle: Path | None) -> bytes:
    """All certificates in one PEM text, for programs that take a single file."""
    return b"\n".join([_host_file().read_bytes(), *([ca_bundle.read_bytes()] if ca_bundle else [])])


def tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """The same for clients in Python."""
    return ssl.create_default_context(cadata=_ascii(pem(ca_bundle)))


def check_file(path: Path) -> Path:
    """``path``, which names a file of certificates.

    Raises:
        ValueError: it does not; says why.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_ascii(path.read_bytes()))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{path} holds no certificate in PEM format") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    return path


def not_accepted(untrusted_text: str) -> bool:
    """Whether a program complains of a certificate."""
    return _NOT_ACCEPTED.search(untrusted_text) is not None


class TlsAdapter(HTTPAdapter):
    """A pool of ``requests`` that trusts whom a context trusts and nobody else, behind a proxy too."""

    def __init__(self, context: ssl.SSLContext, **options: Any) -> None:
        self._context = context
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing to add: the library would have its own list of authorities trusted too."""


def _host_file() -> Path:
    """What this host trusts: by the usual variables, else the system's file, else the list that ``requests`` brings along."""
    named = [os.environ.get(name, "") for name in _VARIABLES]
    return next((Path(name) for name in [*named, *_USUAL] if name and Path(name).is_file()), Path(DEFAULT_CA_BUNDLE_PATH))


def _ascii(data: bytes) -> str:
    """Comments between certificates hold names of every language."""
    return data.decode("ascii", "ignore")
