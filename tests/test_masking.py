"""Secrets in hooks: what is masked, what isn't, and that no text takes long."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.masking import MASK, NOTE, Masking, of_environment

masking = Masking()
GITHUB = "ghp_" + "a1B2" * 9
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("export API_KEY=abcd1234 && run", f"export API_KEY={MASK} && run"),
        ("MY_SECRET_KEY='abcd1234'", f"MY_SECRET_KEY='{MASK}'"),
        ("curl -H 'Authorization: Bearer abc.def-123' u", f"curl -H 'Authorization: {MASK}' u"),
        ("curl -H 'AUTHORIZATION: Basic YTpi' u", f"curl -H 'AUTHORIZATION: {MASK}' u"),
        ("psql postgres://app:pw@db/x", f"psql postgres://app:{MASK}@db/x"),
        ("key AKIAABCDEFGHIJKLMNOP in use", f"key {MASK} in use"),
        ("tool --password hunter2 -v", f"tool --password {MASK} -v"),
        ("tool --api-key=hunter2hunter2", f"tool --api-key={MASK}"),
        ('{"password": "hunter22"}', f'{{"password": "{MASK}"}}'),
        ('{\\"client_secret\\": \\"hunter22\\"}', f'{{\\"client_secret\\": \\"{MASK}\\"}}'),
        ('password = "hunter22"', f'password = "{MASK}"'),
        (f"git push https://x:{GITHUB}@github.com/a/b", f"git push https://x:{MASK}@github.com/a/b"),
        (f"token {GITHUB}.", f"token {MASK}."),
        (f"got {JWT}", f"got {MASK}"),
        ("sk-ant-api03-abcdefghijklmnopqrst", MASK),
        (
            "a\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blb\n-----END OPENSSH PRIVATE KEY-----\nz",
            f"a\n{MASK}\nz",
        ),
        ("-----BEGIN PRIVATE KEY-----\ncut off", MASK),
        ("ü Ü İ PASSWORD=geheim1 ü", f"ü Ü İ PASSWORD={MASK} ü"),
        ("token=abcd;token=efgh", f"token={MASK};token={MASK}"),
    ],
)
def test_what_looks_like_a_secret_is_masked_and_the_rest_stays(text: str, masked: str) -> None:
    assert masking.text(text) == masked
    assert masking.text(masked) == masked, "a second time changes nothing"


@pytest.mark.parametrize(
    "text",
    [
        "token: str | None = None",
        "const token = await getToken()",
        "TOKEN=$TOKEN make",
        'curl -H "X: ${SECRET}" "$URL?token=$TOKEN"',
        "secrets.token_hex(16)",
        "max_tokens: 1000, input_tokens=5",
        "the secret: nothing at all",
        "bearer of bad news",
        "http://localhost:8765/path@2",
        "see https://example.org/a:b@c",
        "risk-assessment, task-list, disk-usage-statistics-and-more",
        "-----BEGIN CERTIFICATE-----",
        "",
    ],
)
def test_what_is_none_is_left_alone(text: str) -> None:
    assert masking.text(text) == text


def test_members_that_name_a_secret_are_masked_whole_but_for_numbers() -> None:
    body = {
        "tool_input": {
            "command": "ls",
            "env": {"DB_PASSWORD": "x", "max_token": 5, "HOME": "/root"},
            "headers": {"Authorization": "y", "Set-Cookie": ["a=b", "c=d"]},
            "credentials": {"user": "u", "ok": True},
            "apiKey": "",
        },
        "list": ["token=abcd", 1, None],
    }
    before = json.dumps(body)
    assert masking.body(body) == {
        "tool_input": {
            "command": "ls",
            "env": {"DB_PASSWORD": MASK, "max_token": 5, "HOME": "/root"},
            "headers": {"Authorization": MASK, "Set-Cookie": [MASK, MASK]},
            "credentials": {"user": MASK, "ok": True},
            "apiKey": "",
        },
        "list": [f"token={MASK}", 1, None],
        NOTE: 6,
    }
    assert json.dumps(body) == before, "what was given stays as it was"


def test_masking_twice_is_masking_once() -> None:
    once = masking.body({"password": "x", "text": f"token={GITHUB}"})
    assert masking.body(once) == once


def test_a_second_masking_adds_to_the_count() -> None:
    once = masking.body({"password": "x", "text": "ACME-123"})
    assert Masking(["ACME-\\d+"]).body(once)[NOTE] == 2


def test_patterns_and_keys_of_ones_own_come_on_top() -> None:
    own = Masking(["ACME-\\d+", "id=(\\d+),(\\d+)"], ["x_ray"])
    assert own.text("ACME-123 id=1,22; token=abcd") == f"{MASK} id={MASK},{MASK}; token={MASK}"
    assert own.body({"X-Ray": "bone"})["X-Ray"] == MASK
    with pytest.raises(re.error):
        Masking(["("])


def test_switched_off_it_lets_everything_pass() -> None:
    body = {"password": "x", "text": "token=abcd"}
    assert Masking(on=False).body(body) == body
    assert Masking(on=False).text("token=abcd") == "token=abcd"


def test_the_environment_sets_it_and_what_cannot_be_read_there_is_passed_over() -> None:
    own = of_environment({"STEADCAST_MASK_PATTERNS": '["ACME", "("]', "STEADCAST_MASK_KEYS": '["ray", 1]'})
    assert own.text("ACME token=abcd") == f"{MASK} token={MASK}"
    assert own.body({"ray": "x"})["ray"] == MASK
    assert of_environment({"STEADCAST_MASKING": "false"}).text("token=abcd") == "token=abcd"
    for broken in ("{", "1", '{"a": 1}'):
        assert of_environment({"STEADCAST_MASK_PATTERNS": broken}).text("token=abcd") != "token=abcd"


def test_what_lies_too_deep_is_masked_unseen() -> None:
    deep: object = "token=abcd"
    for _ in range(400):
        deep = [deep]
    assert "abcd" not in json.dumps(masking.body({"a": deep, "password": deep}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_any_body_is_masked_without_a_change_of_its_form(body: object) -> None:
    masked = masking.body(body)
    assert type(masked) is type(body)
    assert masking.body(masked) == masked


@pytest.mark.parametrize(
    "piece",
    [
        "eyJ-", "password=", "a", "-----BEGIN PRIVATE KEY-----", "://", "://a:", "authorization: ", "bearer ",
        "sk-", "token = 'a", " ", "--token ", "-----BEGIN ", "secret\\\\", "eyJaaaaaaaa.", "://aaaaaaaaaaaaaa",
        "authorization :", 'token="', "ghp_", "A",
    ],
)  # fmt: skip
def test_no_text_takes_long(piece: str) -> None:
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        began = time.process_time()
        masking.text(text)
        return time.process_time() - began

    # Linear: what is quadratic takes minutes for the longer one.
    assert seconds(256 * 1024) < 2.0
