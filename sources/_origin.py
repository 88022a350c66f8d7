"""The one origin a vendor's credential may be sent to, and the addresses below it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx

from sources._errors import UntrustedAddress, WrongSetting
from sources._redact import Redactor

if TYPE_CHECKING:
    from collections.abc import Mapping

_HIGHEST_PORT = 65535
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_UNSAFE_WHEN_DECODED = re.compile(r"[\x00-\x1f\x7f\\]|(^|/)\.\.?(/|$)")


@dataclass(frozen=True)
class Credential:
    """A secret header and the configuration key it comes from."""

    header: str
    value: str = field(repr=False)
    setting: str


class Origin:
    """A base address, the check that another address belongs to it, and the credential for those that do."""

    def __init__(self, vendor: str, base_url: str, credential: Credential, name: str) -> None:
        self.vendor = vendor
        self.name = name
        self.redactor = Redactor([credential.value])
        self.setting = f"sources.{vendor}.base_url"
        self.credential_setting = credential.setting
        self.base = self._checked_base(base_url)
        self.on_loopback = _is_loopback(httpx.URL(self.base).host)
        self._origin = _origin(httpx.URL(self.base))
        self._credential = self._checked(credential)

    def authorize(self, request: httpx.Request) -> None:
        """Add the credential, but only if scheme, host and port are the configured ones."""
        if _origin(request.url) == self._origin:
            request.headers[self._credential.header] = self._credential.value

    def url(self, path: str, params: Mapping[str, str | int]) -> httpx.URL:
        """The address of a path below the base; a path may hold a vendor's id, so it is not trusted."""
        elsewhere = _SCHEME.match(path)
        if elsewhere or _UNSAFE.search(path) or re.search(r"[?#]", path) or _UNSAFE_WHEN_DECODED.search(unquote(path)):
            raise self._untrusted(host_of(path) if elsewhere else "a place outside the API")
        url = httpx.URL(f"{self.base}/{path.removeprefix('/')}", params=params)
        if _origin(url) != self._origin:
            raise self._untrusted(host_of(str(url)))
        return url

    def _untrusted(self, place: str) -> UntrustedAddress:
        text = f"{self.name} was to be asked at {place}, which is not its API: not done."
        return UntrustedAddress(self.vendor, self.redactor.text(text))

    def _checked_base(self, base_url: str) -> str:
        """The base address without a final slash, if it is one a credential may be sent to."""
        trouble = _trouble_with(base_url)
        if trouble:
            text = f"{self.name} cannot be asked: {named(self.setting)} {trouble}."
            raise WrongSetting(self.vendor, text, setting=named(self.setting))
        return str(httpx.URL(base_url)).rstrip("/")

    def _checked(self, credential: Credential) -> Credential:
        """The credential, if a header can carry it; the libraries below would print it when it cannot."""
        if not re.fullmatch(r"[\x21-\x7e]+( [\x21-\x7e]+)*", credential.value.removeprefix("Bearer ")):
            setting = named(credential.setting)
            text = (
                f"{self.name} cannot be asked: {setting} is empty, or holds a line break, a space at "
                "its end or a character that is not plain ASCII. Copy it again."
            )
            raise WrongSetting(self.vendor, text, setting=setting)
        return credential


def query_of(url: str) -> dict[str, str]:
    """The query of a `next` address, which is used for nothing else; {} where there is none to be read."""
    try:
        return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True, max_num_fields=100))
    except (ValueError, TypeError, AttributeError):
        return {}


def named(setting: str) -> str:
    """A configuration key with its environment variable, as messages print it."""
    return f"{setting} (environment: {setting.upper().replace('.', '__')})"


def host_of(address: str, base: httpx.URL | None = None) -> str:
    """The host an address leads to, and nothing else of it."""
    try:
        host = (base.join(address) if base else httpx.URL(address)).host
    except (httpx.InvalidURL, ValueError):
        host = ""
    return f"host {host}" if re.fullmatch(r"[\w.:-]{1,253}", host) else "an unreadable address"


def _trouble_with(base_url: str) -> str:
    """Why no credential may be sent to an address, or nothing."""
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError):
        return "is not an address"
    checks = {
        "is not an https address": _UNSAFE.search(base_url) or url.scheme not in {"https", "http"},
        "must not hold a user name or password": url.userinfo or "@" in "".join(base_url.split("/")[2:3]),
        "must not hold a query or fragment": re.search(r"[?#]", base_url),
        "names no host": not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", url.host),
        "names no port": url.port is not None and not 0 < url.port <= _HIGHEST_PORT,
        "must be https: over http the credential could be read on the way": url.scheme == "http"
        and not _is_loopback(url.host),
    }
    return next((trouble for trouble, found in checks.items() if found), "")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host.lower(), url.port or {"https": 443, "http": 80}.get(url.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
