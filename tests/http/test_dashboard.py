"""The page's files: a table made at start, so that no path of a request opens a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from steadcast.errors import InvalidRequest
from steadcast.http import dashboard
from tests.support.http_serving import Answer, Client, serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("<!doctype html>page")
    (static / "assets" / "app-1a2b.js").write_text("go()")
    (static / "favicon.svg").write_text("<svg/>")
    (static / "noending").write_bytes(b"\0")
    (tmp_path / "secret.txt").write_text("secret")
    (static / "out").symlink_to(tmp_path / "secret.txt")
    return static


def get(client: Client, path: str, **headers: str) -> Answer:
    return client.ask(
        "GET", path, headers={n.replace("_", "-"): v for n, v in headers.items()}, documented=False
    )


def test_the_page_is_asked_for_anew_and_its_hashed_files_never(folder: Path) -> None:
    with serving(static=folder) as (_, client):
        for path in ("/", "/index.html"):
            page = get(client, path)
            assert page.body == b"<!doctype html>page"
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert page.headers["cache-control"] == "no-cache"
        script = get(client, "/assets/app-1a2b.js")
        assert (script.status, script.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
        assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert get(client, "/favicon.svg").headers["content-type"] == "image/svg+xml"
        assert get(client, "/noending").headers["content-type"] == "application/octet-stream"


def test_what_a_browser_has_is_304(folder: Path) -> None:
    with serving(static=folder) as (_, client):
        etag = get(client, "/").headers["etag"]
        for given in (etag, f"W/{etag}", f'"x", {etag}', "*"):
            answer = get(client, "/", If_None_Match=given)
            assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
        assert get(client, "/", If_None_Match='"x"').status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/out",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/assets/../../secret.txt",
        "/assets/",
        "/assets",
        "//etc/passwd",
        "/index.html/",
        "/%00",
        "/nope",
    ],
)
def test_no_path_leads_out_of_the_table(folder: Path, path: str) -> None:
    with serving(static=folder) as (_, client):
        answer = get(client, path)
        assert (answer.status, answer.json["code"]) == (404, "not_found")


def test_files_that_change_after_the_start_change_nothing(folder: Path) -> None:
    with serving(static=folder) as (_, client):
        (folder / "index.html").unlink()
        (folder / "new.txt").write_text("new")
        assert get(client, "/").body == b"<!doctype html>page"
        assert get(client, "/new.txt").status == 404


def test_a_server_without_a_built_page_says_how_to_get_one(tmp_path: Path) -> None:
    with serving(static=tmp_path / "none") as (_, client):
        answer = get(client, "/")
        assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert b"make run" in answer.body


def test_the_page_takes_get_and_head_alone(folder: Path) -> None:
    with serving(static=folder) as (_, client):
        head = client.ask("HEAD", "/", documented=False)
        assert (head.status, head.body) == (200, b"")
        refused = client.ask("POST", "/", b"", documented=False)
        assert (refused.status, refused.json["code"], refused.headers["allow"]) == (
            405,
            "method_not_allowed",
            "GET, HEAD",
        )


def test_under_a_base_path_the_page_has_a_slash_behind_it(folder: Path) -> None:
    with serving(static=folder, base_path="/cast") as (_, client):
        bare = get(client, "")
        assert (bare.status, bare.headers["location"]) == (307, "/cast/")
        assert get(client, "/").body == b"<!doctype html>page"
        assert get(client, "/assets/app-1a2b.js").status == 200
        client.base = ""
        for path in ("/", "/index.html", "/castle", "/v1/streams", "/xcast/"):
            assert get(client, path).status == 404


def test_a_folder_that_is_far_too_large_is_refused_at_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "MOST", 8)
    with pytest.raises(InvalidRequest) as caught:
        dashboard.load(folder)
    assert caught.value.fields["limit"] == 8
