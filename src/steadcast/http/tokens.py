"""Tokens: static ones from the settings, and JSON Web Tokens (RFC 7519) of an issuer's.

A JWT carries `exp` (it must), `scope` (words with spaces between, or a list: publish, subscribe, admin;
others are passed over) and `streams` (a list of patterns, or words with spaces between). Without `scope` or
`streams` it allows nothing. It is signed with HS256 and a shared secret, or with a key of a JWKS file (RFC
7517: RSA, EC and OKP keys; a shared secret in that file is refused, so that no public key is taken for one).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from steadcast.core.scopes import ANYBODY, MAX_PATTERNS, Grant, Identity, Scope, check_pattern
from steadcast.errors import InvalidRequest, NotAllowed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import jwt

    from steadcast.core.scopes import TokenRule

log = structlog.get_logger("steadcast.tokens")

MAX_TOKEN: Final = 8 * 1024
"""Characters; what is longer is nobody's token."""
MIN_SECRET: Final = 32
"""Bytes: an HS256 secret that is shorter than the hash can be guessed (RFC 7518, section 3.2)."""
LOOK_EVERY: Final = 5.0
"""Seconds between two looks whether the JWKS file was replaced, while every token is a right one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRules:
    """How JWTs are verified: `secret` for HS256, `jwks` for public keys; `leeway` is in seconds."""

    secret: str | None = None
    jwks: Path | None = None
    issuer: str | None = None
    audience: str | None = None
    leeway: float = 0.0


class Tokens:
    """Everything that lets somebody in; where nothing is set, everybody may do everything."""

    def __init__(
        self,
        token: str | None = None,
        rules: Sequence[TokenRule] = (),
        jwt_rules: JwtRules | None = None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`token` allows everything. Raises `InvalidRequest` for rules, a secret or a JWKS file of no use."""
        self._wall = wall
        self._static = _identities(token, rules)
        self._sessions = {_session(digest): identity for digest, identity in self._static.items()}
        self._jwt = None if jwt_rules is None else _Jwt(jwt_rules)

    @property
    def required(self) -> bool:
        """Whether anything has to be shown."""
        return bool(self._static) or self._jwt is not None

    def replace(
        self, token: str | None = None, rules: Sequence[TokenRule] = (), jwt_rules: JwtRules | None = None
    ) -> list[str]:
        """Let in by these from now on; gives the names of the tokens that were taken back.

        A token whose rights have changed is taken back as well, and can be shown again; so are all JWTs (as
        `jwt`) where `jwt_rules` have changed. Raises `InvalidRequest` for what is of no use, and where tokens
        would begin or cease to be asked for: then everything stays as it was.
        """
        fresh = _identities(token, rules)
        old = self._jwt
        jwt = old if old and old.rules == jwt_rules else None if jwt_rules is None else _Jwt(jwt_rules)
        if self.required != bool(fresh or jwt):
            told = "whether a token is asked for can't change while the server runs: restart it"
            raise InvalidRequest(told, field="tokens")
        stays = {digest: known for digest, known in self._static.items() if fresh.get(digest) == known}
        gone = [(known.name, known.grant) for digest, known in self._static.items() if digest not in stays]
        if old is not None and jwt is not old:
            gone.append(("jwt", old.grant))
        self._static = fresh | stays
        self._sessions = {_session(digest): identity for digest, identity in self._static.items()}
        self._jwt = jwt
        for _, grant in gone:
            if grant is not None:
                grant.revoke()
        return [name for name, _ in gone]

    def identify(self, token: str) -> Identity:
        """Tell whose token this is; raises `NotAllowed` (`unauthorized`, or `token_expired` for now)."""
        if not self.required:
            return ANYBODY
        if len(token) <= MAX_TOKEN:
            given = _digest(token)
            for digest, identity in self._static.items():
                if hmac.compare_digest(digest, given):
                    return identity
            if self._jwt is not None and is_jwt(token):
                return self._jwt.identify(token, self._wall())
        raise NotAllowed("the token is not the right one", code="unauthorized")

    def session_of(self, token: str) -> str:
        """Give a cookie's value for a token that was identified.

        For a static one it is derived, since browsers show a host's cookies to all its ports; a JWT, which
        ends by itself, stands in it as it is.
        """
        session = _session(_digest(token))
        return session if session in self._sessions else token

    def identify_session(self, session: str) -> Identity:
        """Tell whose cookie this is; raises as `identify`."""
        for known, identity in self._sessions.items():
            if hmac.compare_digest(known, session.encode("ascii", "replace").decode()):
                return identity
        if self._jwt is not None and is_jwt(session) and len(session) <= MAX_TOKEN:
            return self._jwt.identify(session, self._wall())
        raise NotAllowed("the session is not a known one", code="unauthorized")


def is_jwt(token: str) -> bool:
    """Tell whether a token has the form of a JWS in compact serialization (RFC 7515): two dots."""
    return token.count(".") == 2 and token.startswith("eyJ")  # noqa: PLR2004 - RFC 7515, section 7.1


class _Jwt:
    """Verifies JWTs; PyJWT is imported only where some are expected."""

    def __init__(self, rules: JwtRules) -> None:
        import jwt

        if rules.secret is not None and len(rules.secret.encode()) < MIN_SECRET:
            raise InvalidRequest(f"jwt_secret has at least {MIN_SECRET} bytes", field="jwt_secret")
        if rules.secret is not None and rules.secret != rules.secret.strip():
            # Not taken off: who signs may have it from the same file.
            log.warning("jwt_secret has blanks or a line end around it, which count as a part of it")
        self._library = jwt
        self.rules = rules
        self.grant = Grant()
        self._keys: list[jwt.PyJWK] = []
        self._stamp: object = None
        self._unusable: object = None
        self._told = ""
        self._looked = time.monotonic()
        if rules.jwks is not None:
            self._read(rules.jwks)

    def identify(self, token: str, now: float) -> Identity:
        if time.monotonic() - self._looked >= LOOK_EVERY:
            self._look()
        try:
            return self._identify(token, now)
        except NotAllowed:
            # A key that came into the file since may have signed it, and this refusal would be for good.
            if not self._look():
                raise
        return self._identify(token, now)

    def _identify(self, token: str, now: float) -> Identity:
        try:
            identity = _identity(self._claims(token), self.rules.leeway, self.grant)
        except self._library.ImmatureSignatureError as error:
            told = "the token is not valid yet, by this server's clock"
            raise NotAllowed(told, code="unauthorized", temporary=True) from error
        except (self._library.PyJWTError, ValueError, TypeError, OverflowError) as error:
            told = f"the token is not valid: {type(error).__name__.removesuffix('Error')}"
            raise NotAllowed(told, code="unauthorized") from error
        if (why := identity.ended(now)) is not None:
            raise why
        return identity

    def _claims(self, token: str) -> dict[str, Any]:
        header = self._library.get_unverified_header(token)
        *others, last = self._fitting(header.get("alg"), header.get("kid"))
        for key in others:
            with suppress(self._library.InvalidSignatureError):  # of several without a name another may fit
                return self._decode(token, *key)
        return self._decode(token, *last)

    def _decode(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        rules = self.rules
        return self._library.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=rules.issuer,
            audience=rules.audience,
            leeway=rules.leeway,
            # The end is compared with our own clock, which tests can set. When it was made (`iat`) is no
            # condition (RFC 7519, section 4.1.6): the issuer's clock may be ahead of this one.
            options={"require": ["exp"], "verify_exp": False, "verify_iat": False},
        )

    def _fitting(self, algorithm: object, kid: object) -> list[tuple[Any, str]]:
        """Give the keys for a token's header. The algorithm is the key's own, never the token's choice."""
        if algorithm == "HS256" and self.rules.secret is not None:
            return [(self.rules.secret, "HS256")]
        keys = [key for key in self._keys if key.algorithm_name == algorithm and kid in {None, key.key_id}]
        if not keys:
            raise self._library.InvalidKeyError("no key for this token")
        return [(key, key.algorithm_name) for key in keys]

    # The JWKS file

    def _look(self) -> bool:
        """Tell whether the file has other keys by now; one of no use is told once, and not read again."""
        path, self._looked = self.rules.jwks, time.monotonic()
        if path is None:
            return False
        try:
            stamp = stamp_of(path)
            if stamp in {self._stamp, self._unusable}:
                self._told = "" if stamp == self._stamp else self._told
                return False
            self._read(path)
        except (OSError, InvalidRequest) as error:
            # Whoever replaces the file may be in the middle of it: the old keys hold until it can be read.
            if str(error) != self._told:
                self._told = str(error)
                log.warning("the JWKS file can't be used; its old keys hold", error=str(error))
            return False
        self._told = ""
        log.info("the keys were read anew", keys=len(self._keys))
        return True

    def _read(self, path: Path) -> None:
        try:
            stamp = stamp_of(path)
            content = path.read_bytes()
        except OSError as error:
            raise InvalidRequest(
                f"jwt_jwks: {path} can't be read: {error.strerror}", field="jwt_jwks"
            ) from error
        try:
            keys = self._parse(json.loads(content))
        except (ValueError, LookupError, AttributeError, TypeError, self._library.PyJWTError) as error:
            self._unusable = stamp
            raise InvalidRequest(f"jwt_jwks: {path} is no JWKS: {error}", field="jwt_jwks") from error
        self._keys, self._stamp = keys, stamp

    def _parse(self, document: dict[str, Any]) -> list[jwt.PyJWK]:
        wanted = [each for each in document["keys"] if each.get("use", "sig") == "sig"]
        if any(each.get("kty") == "oct" for each in wanted):
            raise ValueError("its keys are RSA, EC or OKP; a shared secret is set as jwt_secret")
        keys = [key for each in wanted if (key := self._understood(each)) is not None]
        if not keys:
            raise ValueError("it has no key to verify with")
        if len(keys) < len(wanted):
            told = "keys of the JWKS file that are not understood are left out"
            log.warning(told, left_out=len(wanted) - len(keys), keys=len(keys))
        return keys

    def _understood(self, each: dict[str, Any]) -> jwt.PyJWK | None:
        """Read a key; one of another kind keeps no other from use (RFC 7517, section 5)."""
        try:
            return self._library.PyJWK(each)
        except self._library.PyJWTError:
            return None  # counted by who asks


def _identities(token: str | None, rules: Sequence[TokenRule]) -> dict[bytes, Identity]:
    found = {_rule_digest(rule): _rule_identity(rule) for rule in rules}
    if token:
        if token.isspace():
            raise InvalidRequest("token: it is blank", field="token")
        # One that was read from a file has the file's last line end, which no header carries.
        found[_digest(token.strip())] = Identity(name="token", grant=Grant())
    return found


def _rule_identity(rule: TokenRule) -> Identity:
    patterns = tuple(map(check_pattern, rule.streams))
    return Identity(name=rule.name, scopes=frozenset(rule.scopes), streams=patterns, grant=Grant())


def _rule_digest(rule: TokenRule) -> bytes:
    given = (rule.token or "").strip()
    if bool(given) == bool(rule.sha256):
        told = f"the token {rule.name!r} is given as token or as sha256, one of the two"
        raise InvalidRequest(told, field="tokens")
    return _digest(given) if given else bytes.fromhex(rule.sha256 or "")


def _identity(claims: dict[str, Any], leeway: float, grant: Grant) -> Identity:
    """Read the claims; raises ValueError, TypeError or OverflowError for an end that is none."""
    end = float(claims["exp"])
    if not math.isfinite(end):
        raise ValueError("exp is a time")
    known = {str(scope) for scope in Scope}
    streams = _words(claims.get("streams"))[:MAX_PATTERNS]
    return Identity(
        name=ascii(str(claims.get("sub", "jwt")))[1:-1][:128],
        scopes=frozenset(Scope(word) for word in _words(claims.get("scope")) if word in known),
        streams=tuple(each for each in streams if _is_pattern(each)),
        expires=end + leeway,
        grant=grant,
    )


def _is_pattern(text: str) -> bool:
    try:
        check_pattern(text)
    except InvalidRequest:
        return False  # allows nothing, as if it weren't there
    return True


def _words(claim: object) -> list[str]:
    if isinstance(claim, str):
        return claim.split()
    return [each for each in claim if isinstance(each, str)] if isinstance(claim, list) else []


def stamp_of(path: Path) -> object:
    """Give what is another one once a file was replaced; raises OSError."""
    told = path.stat()
    return told.st_mtime_ns, told.st_size, told.st_ino


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _session(digest: bytes) -> str:
    return hmac.new(digest, b"steadcast session 2", hashlib.sha256).hexdigest()
