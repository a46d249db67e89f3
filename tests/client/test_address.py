"""Addresses: what a URL means, and which spool folder it names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.client.address import parse_address
from steadcast.errors import InvalidRequest


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8765",
        "http://localhost:8765",
        "http://localhost:8765/",
        "http://LOCALHOST:8765",
        "http://localhost.:8765",
        "http://[::1]:8765",
        "http://0.0.0.0:8765",
        "http://[::]:8765",
        "http://127.0.1.1:8765",
        "https://localhost:8765",
        "localhost:8765",
        "127.0.0.1:8765",
    ],
)
def test_every_local_name_of_a_port_has_the_same_spool_folder(url: str) -> None:
    assert parse_address(url).folder == "localhost_8765"


def test_other_servers_have_other_folders() -> None:
    urls = [
        "http://127.0.0.1:8765",
        "http://127.0.0.1:8766",
        "http://127.0.0.1:8765/base",
        "http://events.example",
        "https://events.example",
        "http://127.example:8765",
        "http://[fe80::1]:8765",
    ]
    assert len({parse_address(url).folder for url in urls}) == len(urls)


def test_the_default_ports_are_those_of_the_scheme() -> None:
    assert parse_address("http://a.example").port == 80
    assert parse_address("https://a.example").port == 443


def test_the_authority_names_the_port_only_where_it_is_not_the_default() -> None:
    assert parse_address("https://a.example:443").authority == "a.example"
    assert parse_address("http://a.example:443").authority == "a.example:443"
    assert parse_address("http://[::1]:8765").authority == "[::1]:8765"


def test_a_base_path_is_kept_without_its_trailing_slash() -> None:
    address = parse_address("https://a.example/events/live/")
    assert address.base == "/events/live"
    assert address.url == "https://a.example/events/live"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "ftp://a.example",
        "http://a.example:99999",
        "http://a.example:port",
        "http://user:secret@a.example",
        "http://a.example?x=1",
        "http://a.example#x",
        "http://a b.example",
        "http://a.example/x y",
        "http://bücher.example",
        "http://a..example",
        "http://.example",
        f"http://{'a' * 64}.example",
        "http://[::1",
        "unix:///run/x.sock",
    ],
)
def test_what_is_no_servers_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_address(url)


@given(st.text(max_size=300))
def test_any_text_is_an_address_or_refused_and_its_folder_is_one_safe_name(text: str) -> None:
    try:
        folder = parse_address(f"http://{text}").folder
    except InvalidRequest:
        return
    assert "/" not in folder
    assert 3 < len(folder) < 256
    assert folder.isascii()


def test_long_addresses_keep_folders_of_their_own() -> None:
    first, second = (parse_address(f"http://a.example/{'x' * 400}{end}").folder for end in "ab")
    assert first != second
    assert len(first) < 256
