"""Masking: secrets in what a coding agent's hooks hand over, taken out before it is kept. Pure.

Masked are the texts under keys that name a secret (`password`, `api_key`, `Authorization` …), and in every
other text what looks like one: keys of known services, private keys, JSON Web Tokens, bearer tokens,
passwords in URLs, `NAME_TOKEN=…`, `--password …`. Patterns and keys of one's own come on top. It is a net,
not a wall: a secret that looks like nothing in particular passes.

Only the standard library: `steadcast hook` masks before it spools. Every pattern is linear in the text, since
texts come from outside: runs are bounded, or can begin in one place only.
"""

from __future__ import annotations

import json
import re
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

MASK = "[masked]"
NOTE = "steadcast_masked"
"""The member that says, in a body that was changed, how many texts were."""
MAX_DEPTH = 160
"""Levels; the server takes 128. What lies deeper is masked unseen."""

_KEYS = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "token",
    "authorization",
    "proxyauthorization",
    "cookie",
    "setcookie",
    "credential",
    "credentials",
]
"""A key names a secret when it ends so, without regard to case, `-` and `_`."""

_RUN = r"[A-Za-z0-9_-]"
_NAME = r"(?:pass(?:word|wd|phrase)|secret(?:[_-]?key)?|token|(?:api|access|private)[_-]?key|credentials?)"
_NAMED = rf"""
    {_NAME}(?: =["']?([^\s"'&;,)}}\]$<{{(\[][^\s"'&;,)}}\]]{{3,}})
             | \\?["']?\s{{0,4}}[:=]\s{{0,4}}\\?["']([^\s"'\\$<{{\[][^\s"'\\]{{3,}}) )
"""
_FLAG = rf"""--{_NAME}\ ["']?([^\s"'$<\[-][^\s"']{{3,}})"""
_HEADER = r"""authorization["']?\s{0,4}[:=]\s{0,4}["']?((?:[a-z]{1,20}\s{1,4}[^\s"',;\[]+)|[^\s"',;\[]{4,})"""
_PEM = r"-----BEGIN\ [A-Z ]{0,30}PRIVATE\ KEY-----[\s\S]*?(?:-----END\ [A-Z ]{0,30}PRIVATE\ KEY-----|\Z)"

_SERVICES = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "npm_",
    "hf_",
    "pypi-",
    "sk-",
    "sk_live_",
    "rk_live_",
    "xoxa-",
    "xoxb-",
    "xoxe-",
    "xoxp-",
    "xoxr-",
    "xoxs-",
    "AIza",
]
_EXACT = {
    "-----BEGIN ": _PEM,
    "AKIA": r"(?<![A-Za-z0-9])AKIA[0-9A-Z]{16}(?![A-Za-z0-9])",
    "ASIA": r"(?<![A-Za-z0-9])ASIA[0-9A-Z]{16}(?![A-Za-z0-9])",
    "eyJ": rf"(?<!{_RUN})eyJ{_RUN}{{8,}}\.{_RUN}{{8,}}\.{_RUN}{{8,}}",
    **{begin: rf"(?<!{_RUN}){begin}{_RUN}{{20,}}" for begin in _SERVICES},
}
"""How a secret begins that can be told by its own form, and that form."""

_FLAGS = [
    "--password",
    "--passwd",
    "--passphrase",
    "--secret",
    "--token",
    "--api-key",
    "--api_key",
    "--access-key",
]
_SIGNS = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "accesskey",
    "access_key",
    "access-key",
    "privatekey",
    "private_key",
    "private-key",
    "credential",
]
_LOWER = {
    "authorization": _HEADER,
    "bearer": r"bearer\s{1,4}([a-z0-9._~+/=-]{20,})",
    "://": r"""://[^\s/:@"']{0,256}:([^\s/@"'\[]{1,256})@""",
    **dict.fromkeys(_FLAGS, _FLAG),
    **dict.fromkeys(_SIGNS, _NAMED),
}
"""What stands, in any case, where a secret follows; the groups are what is masked."""
_TO_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
# A text is searched for the words, which is fast, and a pattern looked at only where one stands.


class Masking:
    """What is masked. `patterns` are regular expressions of one's own, `keys` names of members.

    Of a pattern with groups, what its groups match is masked; of one without, the whole.
    """

    def __init__(self, patterns: Iterable[str] = (), keys: Iterable[str] = (), *, on: bool = True) -> None:
        """Switched off, everything passes. Raises `re.error` for a pattern that is none."""
        self._on = on
        self._keys = tuple(_plain(key) for key in (*_KEYS, *keys) if _plain(key)) if on else ()
        self._patterns = [re.compile(each) for each in patterns] if on else []

    def body(self, value: Any) -> Any:
        """Mask a decoded JSON body; an object that was changed says in `steadcast_masked` how often."""
        if not self._on:
            return value
        count = [0]
        masked = self._value(value, count, 0)
        if count[0] and isinstance(masked, dict):
            told = masked.get(NOTE)  # a hook has masked some already
            masked[NOTE] = count[0] + (told if isinstance(told, int) else 0)
        return masked

    def text(self, text: str) -> str:
        """Mask a text."""
        if not self._on:
            return text
        text = _hidden(text, _found(text))
        for pattern in self._patterns:
            text = _hidden(text, [span for match in pattern.finditer(text) for span in _spans(match)])
        return text

    def _value(self, value: Any, count: list[int], depth: int) -> Any:
        if isinstance(value, str):
            masked = self.text(value)
            count[0] += masked != value
            return masked
        if not isinstance(value, (dict, list)):
            return value
        if depth >= MAX_DEPTH:
            count[0] += 1
            return MASK
        if isinstance(value, list):
            return [self._value(each, count, depth + 1) for each in value]
        return {
            key: self._whole(each, count, depth + 1)
            if self._is_secret(key)
            else self._value(each, count, depth + 1)
            for key, each in value.items()
        }

    def _is_secret(self, key: str) -> bool:
        return _plain(key).endswith(self._keys)

    def _whole(self, value: Any, count: list[int], depth: int) -> Any:
        """Mask every text in a value whose key names a secret; numbers are counts, such as `max_token`."""
        if isinstance(value, str):
            count[0] += value not in {"", MASK}
            return MASK if value else value
        if not isinstance(value, (dict, list)):
            return value
        if depth >= MAX_DEPTH:
            count[0] += 1
            return MASK
        if isinstance(value, list):
            return [self._whole(each, count, depth + 1) for each in value]
        return {key: self._whole(each, count, depth + 1) for key, each in value.items()}


def of_environment(environ: Mapping[str, str]) -> Masking:
    """Give the masking that `STEADCAST_MASKING`, `_MASK_PATTERNS` and `_MASK_KEYS` ask for.

    What can't be read there is passed over: the built-in patterns hold, and the server, which refuses to
    start with it, says so.
    """
    on = environ.get("STEADCAST_MASKING", "true").strip().lower() not in {"false", "0", "no", "off", "f", "n"}
    keys = _list(environ.get("STEADCAST_MASK_KEYS"))
    patterns = [each for each in _list(environ.get("STEADCAST_MASK_PATTERNS")) if _is_pattern(each)]
    return Masking(patterns, keys, on=on)


@cache
def _compiled(pattern: str, flags: int) -> re.Pattern[str]:
    return re.compile(pattern, flags)


def _found(text: str) -> list[tuple[int, int]]:
    """Give the places of what looks like a secret, in no order."""
    # Not every character has one lower one: places must stay what they are.
    lower = text.lower() if text.isascii() else text.translate(_TO_LOWER)
    return [
        *_search(text, text, _EXACT, re.VERBOSE),
        *_search(text, lower, _LOWER, re.VERBOSE | re.IGNORECASE),
    ]


def _search(text: str, searched: str, table: dict[str, str], flags: int) -> Iterator[tuple[int, int]]:
    for word, pattern in table.items():
        at = searched.find(word)
        while at >= 0:
            match = _compiled(pattern, flags).match(text, at)
            if match is not None:
                yield from _spans(match)
            at = searched.find(word, match.end() if match else at + len(word))


def _spans(match: re.Match[str]) -> list[tuple[int, int]]:
    groups = match.re.groups
    spans = [match.span(number) for number in range(1, groups + 1)] if groups else [match.span()]
    return [span for span in spans if span[1] > span[0]]


def _hidden(text: str, spans: list[tuple[int, int]]) -> str:
    parts: list[str] = []
    done = 0
    for begin, end in sorted(spans):
        if begin >= done:
            parts += (text[done:begin], MASK)
        done = max(done, end)
    return "".join((*parts, text[done:])) if parts else text


def _plain(key: str) -> str:
    return key.lower().replace("-", "").replace("_", "")


def _list(text: str | None) -> list[str]:
    try:
        value = json.loads(text or "[]")
    except ValueError:
        return []
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True
