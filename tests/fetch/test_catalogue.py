"""Addresses of catalogues and of their files."""

from __future__ import annotations

import pytest

from fireseg.errors import FiresegError, SettingError
from fireseg.fetch.catalogue import CATALOGUES, Catalogue, CatalogueClient, parse_catalogue
from tests.fetch.builders import StacServer


def test_known_catalogues_have_their_collection() -> None:
    assert parse_catalogue("earth-search").collection == "sentinel-2-c1-l2a"
    assert parse_catalogue("planetary").collection == "sentinel-2-l2a"
    assert parse_catalogue("cdse") is CATALOGUES["cdse"]


def test_an_address_may_name_a_collection() -> None:
    assert parse_catalogue("https://stac.example.org/v1") == Catalogue(url="https://stac.example.org/v1")
    assert parse_catalogue("https://stac.example.org/v1#s2").collection == "s2"


def test_an_unknown_catalogue_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingError, match=r"--catalog: earthsearch \(did you mean 'earth-search'\?\)"):
        parse_catalogue("earthsearch")


def test_a_token_is_fetched_once_and_appended(stac: StacServer) -> None:
    client = CatalogueClient(Catalogue(url=stac.url, token_url=f"{stac.url}/token"))
    assert client.complete_href("https://example.org/a.tif") == "https://example.org/a.tif?sig=secret"
    assert client.complete_href("https://example.org/a.tif?v=1") == "https://example.org/a.tif?v=1&sig=secret"
    assert [path for _, path in stac.requests].count("/token") == 1


def test_s3_addresses_are_read_by_gdal(stac: StacServer) -> None:
    client = CatalogueClient(Catalogue(url=stac.url))
    assert client.complete_href("s3://eodata/a.jp2") == "/vsis3/eodata/a.jp2"


def test_a_server_that_is_down_is_named(stac: StacServer) -> None:
    with pytest.raises(FiresegError, match=r"^http://127.0.0.1:1: cannot be read .*try again later"):
        CatalogueClient(Catalogue(url="http://127.0.0.1:1"))


def test_a_static_catalogue_is_refused(stac: StacServer) -> None:
    stac.conforms = ("core",)
    with pytest.raises(FiresegError, match=r"offers no search of items; give the address of a STAC API"):
        CatalogueClient(Catalogue(url=stac.url))


def test_a_page_that_is_no_catalogue_is_named(stac: StacServer) -> None:
    with pytest.raises(FiresegError, match=r"^http://127.0.0.1:\d+/token: cannot be read .*another --catalog"):
        CatalogueClient(Catalogue(url=f"{stac.url}/token"))
