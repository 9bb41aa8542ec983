"""Who may look: everybody on this machine, or who has the token.

After the login form a cookie stands for the token. It is made from the token and ends by itself; the token is not in it.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address

from pydantic import SecretStr

from offchainvm.errors import SettingsError

COOKIE = "offchainvm"
COOKIE_SECONDS = 7 * 86_400
_SHORTEST = 16


class Access:
    """Judges requests by their headers.

    Raises:
        SettingsError: other machines reach ``host``, and there is no token; or it is too short to be one.
    """

    def __init__(self, host: str, token: SecretStr) -> None:
        self._host, self._token = host, token.get_secret_value()
        if self._token and len(self._token) < _SHORTEST:
            raise SettingsError([f"WEB_TOKEN: is shorter than {_SHORTEST} characters. Make one: openssl rand -hex 24"])
        if not self._token and not _loopback(host):
            remedy = "Set WEB_TOKEN or WEB_TOKEN_FILE, or leave WEB_HOST at 127.0.0.1."
            raise SettingsError([f"WEB_TOKEN: is missing, and other machines reach {host}. {remedy}"])

    @property
    def asks(self) -> bool:
        """Whether a token is needed."""
        return bool(self._token)

    def misled(self, untrusted_host: str) -> bool:
        """A browser was led here under another name: a stranger's page would read ours, where no token keeps it out."""
        name = untrusted_host.rpartition(":")[0] if untrusted_host.rpartition(":")[2].isdigit() else untrusted_host
        return not self._token and not (_loopback(name.strip("[]")) or name.lower() == self._host.lower())

    def allows(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers (names in lower case) may look."""
        if not self._token:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        return (scheme.lower() == "bearer" and self.knows(bearer.strip())) or self._honours(headers.get("cookie", ""))

    def knows(self, untrusted_token: str) -> bool:
        """Whether it is the token; takes as long for a near miss as for any other."""
        return bool(self._token) and hmac.compare_digest(_digest(untrusted_token), _digest(self._token))

    def cookie(self) -> str:
        """The value of ``Set-Cookie`` that stands for the token."""
        until = str(int(time.time()) + COOKIE_SECONDS)
        return f"{COOKIE}={until}.{self._signature(until)}; Max-Age={COOKIE_SECONDS}; Path=/; HttpOnly; SameSite=Lax"

    def _honours(self, untrusted_cookies: str) -> bool:
        try:
            found = SimpleCookie(untrusted_cookies).get(COOKIE)
        except CookieError:
            return False
        until, _, signature = found.value.partition(".") if found else ("", "", "")
        fresh = until.isascii() and until.isdigit() and len(until) < 12 and int(until) > time.time()
        return fresh and hmac.compare_digest(signature.encode(), self._signature(until).encode())

    def _signature(self, until: str) -> str:
        return hmac.new(self._token.encode(), f"status page until {until}".encode(), hashlib.sha256).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
