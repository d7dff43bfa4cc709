"""Searches STAC catalogues for Sentinel-2 items."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fireseg.errors import FiresegError, SettingError, did_you_mean

log = logging.getLogger("fireseg")

_COLLECTION = "sentinel-2-l2a"

_RETRY_WAITS_S = (1.0, 4.0, 10.0)
"""Waits before a failed request is made again; after the last one it is an error."""

_TIMEOUT_S = 60.0

_PAGE_ITEMS = 100

_TOKEN_LIFETIME_S = 1800.0
"""Planetary Computer's tokens are valid for 45 minutes and more."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Address of a collection in a STAC API.

    Attributes:
        url: Root of the API.
        collection: Name of the collection of level-2A items.
        token_url: Address of a token to append to the addresses of files, if they need one.
        s3_endpoint: Host of the files with s3 addresses, if it is not Amazon's.
        s3_advice: Remedy if access to the files is refused.
    """

    url: str
    collection: str = _COLLECTION
    token_url: str = ""
    s3_endpoint: str = ""
    s3_advice: str = ""


CATALOGUES = {
    # The older collection sentinel-2-l2a has wrong offsets in a part of its items.
    "earth-search": Catalogue(url="https://earth-search.aws.element84.com/v1", collection="sentinel-2-c1-l2a"),
    "planetary": Catalogue(
        url="https://planetarycomputer.microsoft.com/api/stac/v1",
        token_url=f"https://planetarycomputer.microsoft.com/api/sas/v1/token/{_COLLECTION}",
    ),
    "cdse": Catalogue(
        url="https://stac.dataspace.copernicus.eu/v1",
        s3_endpoint="eodata.dataspace.copernicus.eu",
        s3_advice="create keys at https://eodata-s3keysmanager.dataspace.copernicus.eu and set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or use another --catalog",
    ),
}


def parse_catalogue(text: str) -> Catalogue:
    """Parses the name of a known catalogue, or `URL` or `URL#collection` of a STAC API.

    Raises:
        SettingError: If it is neither.

    Example:
        >>> parse_catalogue("https://stac.example.org/v1#s2-l2a").collection
        's2-l2a'
    """
    if text in CATALOGUES:
        return CATALOGUES[text]
    url, _, collection = text.partition("#")
    if urlsplit(url).scheme not in ("http", "https"):
        raise SettingError(
            f"--catalog: {text}{did_you_mean(text, CATALOGUES)}, but it must be one of {', '.join(CATALOGUES)}, or "
            "the https:// address of a STAC API"
        )
    return Catalogue(url=url, collection=collection or _COLLECTION)


class CatalogueClient:
    """Connection to a catalogue; requests that fail for a while are made again.

    Args:
        catalogue: Catalogue to read.

    Attributes:
        catalogue: The catalogue.
        licence: Licence of the collection, as an identifier or an address; None if the collection names none.

    Raises:
        FiresegError: If the catalogue cannot be reached, or has no such collection.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._client = self._request(self._open)
        self.licence = self._request(self._read_licence)
        self._token, self._token_time, self._lock = "", 0.0, threading.Lock()

    def search(self, bounds: Sequence[float], first: date, last: date) -> list[Any]:
        """Searches the items that touch an area.

        Args:
            bounds: West, south, east, north in degrees.
            first: First day.
            last: Last day. Days are those of universal time; half a day is added at both ends, so that all solar
                days are complete.

        Returns:
            pystac items, in no particular order.
        """
        noon = datetime(first.year, first.month, first.day, tzinfo=UTC) - timedelta(hours=12)
        end = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(hours=36)
        interval = f"{noon:%Y-%m-%dT%H:%M:%SZ}/{end:%Y-%m-%dT%H:%M:%SZ}"

        def search() -> list[Any]:
            found = self._client.search(
                collections=[self.catalogue.collection], bbox=list(bounds), datetime=interval, limit=_PAGE_ITEMS
            )
            return list(found.items())

        return self._request(search)

    def complete_href(self, href: str) -> str:
        """Returns the address under which GDAL can read a file: with a token where the catalogue needs one."""
        if href.startswith("s3://"):
            return f"/vsis3/{href.removeprefix('s3://')}"
        if not self.catalogue.token_url:
            return href
        with self._lock:
            if time.monotonic() > self._token_time + _TOKEN_LIFETIME_S or not self._token:
                self._token, self._token_time = self._request(self._read_token), time.monotonic()
        return f"{href}{'&' if '?' in href else '?'}{self._token}"

    def _open(self) -> Any:
        from pystac_client import Client
        from pystac_client.stac_api_io import StacApiIO

        # Retries are made here, because those of the client do not cover a response that is cut short.
        client = Client.open(self.catalogue.url, stac_io=StacApiIO(max_retries=None, timeout=_TIMEOUT_S))
        if not (client.conforms_to("ITEM_SEARCH") and client.conforms_to("COLLECTIONS")):
            raise FiresegError(
                f"{self.catalogue.url}: offers no search of items; give the address of a STAC API, not of its pages or "
                "of a static catalogue"
            )
        return client

    def _read_licence(self) -> str | None:
        collection = self._client.get_collection(self.catalogue.collection)
        if collection is None:
            raise FiresegError(
                f"{self.catalogue.url}: no collection {self.catalogue.collection}; name another one with "
                f"--catalog '{self.catalogue.url}#COLLECTION'"
            )
        links = [link.get_absolute_href() for link in collection.links if link.rel == "license"]
        return next((link for link in links if link), collection.license)

    def _read_token(self) -> str:
        import requests

        response = requests.get(self.catalogue.token_url, timeout=_TIMEOUT_S)
        response.raise_for_status()
        return str(response.json()["token"])

    def _request(self, action: Callable[[], Result]) -> Result:
        from pystac import STACError
        from pystac_client.errors import ClientTypeError
        from pystac_client.exceptions import APIError
        from requests import RequestException

        def describe(error: Exception) -> FiresegError:
            return FiresegError(f"{self.catalogue.url}: {_summarize(error)}; {_advise(error)}")

        # A response that is cut short is no JSON, which is a ValueError, and may lack a key.
        expected = (APIError, RequestException, STACError, ClientTypeError, ValueError, KeyError)
        return retry(action, expected, describe, is_final=_is_refusal)


def retry(
    action: Callable[[], Result],
    expected: tuple[type[Exception], ...],
    describe: Callable[[Exception], FiresegError],
    *,
    is_final: Callable[[Exception], bool] = lambda error: False,
) -> Result:
    """Calls an action again after failures that may pass, with longer and longer waits.

    Args:
        action: Reads something from the network.
        expected: Exceptions after which it is called again.
        describe: Converts the last of them to an error.
        is_final: Returns True for an exception that will not pass.

    Raises:
        FiresegError: If the action fails to the end.
    """
    for wait_s in (*_RETRY_WAITS_S, None):
        try:
            return action()
        except expected as error:
            failure = describe(error)
            if wait_s is None or is_final(error):
                raise failure from error
        log.info("%s; trying again", failure.faults[0].partition(";")[0])
        time.sleep(wait_s)
    raise AssertionError("unreachable")


def _get_status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    return getattr(error, "status_code", None) or getattr(response, "status_code", None)


def _is_refusal(error: Exception) -> bool:
    """Returns True if the server understood the request and refuses it."""
    status = _get_status(error)
    return status is not None and 400 <= status < 500 and status not in (408, 429)


def _summarize(error: Exception) -> str:
    if status := _get_status(error):
        return f"the catalogue answers with HTTP status {status}"
    if isinstance(error, ValueError | KeyError | TypeError) and "request" not in type(error).__module__:
        return "the answer is no valid STAC JSON, or was cut short"
    reason = " ".join(str(error).split())
    return f"cannot be read ({reason[:200]})"


def _advise(error: Exception) -> str:
    if _is_refusal(error):
        return "check the address, or use another --catalog"
    return "try again later, or use another --catalog"
