"""Who hands out tokens, and knows better than any server which of them are still good."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import jwt

from steadcast.client.token import TokenSource
from steadcast.core.scopes import Scope, TokenRule
from steadcast.http.tokens import JwtRules, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from tests.sim.world import World

LIVES = (4.0, 15.0, 40.0, 3_600.0)
"""Seconds that a token lives."""


GONE = {"token_expired", "token_revoked", "unauthorized"}
"""What the house says of a token that has ended: which of them depends on how it did."""
ENDED, FORBIDDEN = "ended", "forbidden"
BARRED = "barred"
"""A stream that nobody's token covers."""


class Right(NamedTuple):
    """What somebody with a token asks for; None: to come in at all."""

    token: str
    scope: Scope | None = None
    stream: str | None = None


class Issuer:
    """Gives tokens that end (JSON Web Tokens), and static ones that don't; takes both kinds back."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.keys = 0
        self.taken_back: Counter[str] = Counter()
        self.statics: dict[str, tuple[Scope, Sequence[str]]] = {}
        self.ends: dict[str, float] = {}
        self.minted: dict[str, tuple[Scope, Sequence[str]]] = {}

    # For those who come

    def source(self, who: str, scope: Scope, streams: Sequence[str], rng: Random) -> TokenSource:
        """Give what a client asks for a token each time that it needs one."""
        if rng.random() < 0.3:
            self.statics[who] = (scope, streams)
            if self.world.server is not None:
                self.world.server.reload_tokens()
            return TokenSource(lambda: self._static(who))
        return TokenSource(lambda: self._minted(who, scope, streams, rng.choice(LIVES)))

    def _static(self, who: str) -> str:
        return f"{who}-{self.taken_back[who]}"

    def _minted(self, who: str, scope: Scope, streams: Sequence[str], life: float) -> str:
        end = self.world.wall() + life
        token = jwt.encode({"sub": who, "scope": scope, "streams": list(streams), "exp": end}, self._secret)
        self.ends[token] = end
        self.minted[token] = (scope, streams)
        return token

    # For the servers

    @property
    def _secret(self) -> str:
        return f"the secret that signs, number {self.keys:10}"

    def rules(self) -> tuple[None, list[TokenRule], JwtRules]:
        """Give what a server's settings would say."""
        rules = [
            TokenRule(name=who, token=self._static(who), scopes=[scope], streams=tuple(streams))
            for who, (scope, streams) in self.statics.items()
        ]
        return None, rules, JwtRules(secret=self._secret)

    def tokens(self) -> Tokens:
        """Give what a server lets in by."""
        return Tokens(*self.rules(), wall=self.world.wall)

    # The truth

    def truth(self, right: Right) -> str:
        """Tell what a token is worth now: "" where it holds and allows this."""
        token, scope, stream = right
        end = self.ends.get(token)
        if end is None:
            rights = [self.statics[who] for who in self.statics if token == self._static(who)]
        else:
            rights = [self.minted[token]] if self.world.wall() < end else []
        if not rights:
            return ENDED
        allowed, streams = rights[0]
        return "" if scope in {None, allowed} and (stream is None or stream in streams) else FORBIDDEN

    def take_back(self, rng: Random) -> str:
        """Take back a static token, or all that were signed, as a new secret does; tells which."""
        names: list[Any] = [*sorted(self.statics), None]
        who = rng.choice(names)
        if who is None:
            self.keys += 1
            self.ends = dict.fromkeys(self.ends, float("-inf"))
            return "every token that was signed"
        self.taken_back[who] += 1
        return f"the token of {who}"
