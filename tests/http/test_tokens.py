"""Static tokens and JSON Web Tokens: whose they are, and which are nobody's."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from structlog.testing import capture_logs

from steadcast.core.scopes import ANYBODY, Identity, Scope, TokenRule
from steadcast.errors import InvalidRequest, NotAllowed
from steadcast.http import tokens as module
from steadcast.http.tokens import JwtRules, Tokens

SECRET = "a secret of at least thirty-two bytes"  # noqa: S105 - made up for these tests
ONE = "one"
RSA = rsa.generate_private_key(65537, 2048)
CLAIMS: dict[str, Any] = {"sub": "ann", "scope": "publish openid subscribe", "streams": ["orders.*"]}


def claims(**more: Any) -> dict[str, Any]:
    return CLAIMS | {"exp": time.time() + 60} | more


def signed(key: Any = SECRET, algorithm: Any = "HS256", kid: Any = None, **more: Any) -> str:
    return jwt.encode(claims(**more), key, algorithm, headers={"kid": kid} if kid else None)


def public(key: Any = RSA, kid: str = "one", **more: Any) -> dict[str, Any]:
    kind = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return kind.to_jwk(key.public_key(), as_dict=True) | {"kid": kid} | more


def jwks(folder: Path, *keys: dict[str, Any]) -> Path:
    path = folder / "jwks.json"
    path.write_text(json.dumps({"keys": keys}))
    return path


def code_of(tokens: Tokens, token: str) -> str:
    with pytest.raises(NotAllowed) as caught:
        tokens.identify(token)
    assert token not in caught.value.message
    return caught.value.code


hs256 = Tokens(jwt_rules=JwtRules(secret=SECRET))


def test_the_one_token_may_everything_and_without_any_everybody_may() -> None:
    tokens = Tokens("t")
    assert tokens.identify("t").scopes == frozenset(Scope)
    assert code_of(tokens, "x") == "unauthorized"
    assert Tokens().identify("whatever") is ANYBODY
    assert (Tokens().required, tokens.required, hs256.required) == (False, True, True)


def test_the_line_end_of_a_file_is_no_part_of_a_token() -> None:
    tokens = Tokens("two\n", [TokenRule(name="r", scopes=[Scope.PUBLISH], token=f" {ONE}\n")])
    assert tokens.identify("two").name == "token"
    assert tokens.identify(ONE).name == "r"


@pytest.mark.parametrize("blank", [" ", "\n"])
def test_a_blank_token_is_refused_and_lets_nobody_in(blank: str) -> None:
    with pytest.raises(InvalidRequest):
        Tokens(blank)
    with pytest.raises(InvalidRequest):
        Tokens(rules=[TokenRule(name="r", scopes=[Scope.PUBLISH], token=blank)])
    with pytest.raises(NotAllowed):
        Tokens("one").identify(blank)


def test_each_token_of_the_settings_has_its_own_rights() -> None:
    digest = hashlib.sha256(b"two").hexdigest()
    tokens = Tokens(
        "all",
        [
            TokenRule(name="ci", token=ONE, scopes=[Scope.PUBLISH], streams=("builds.*",)),
            TokenRule(name="page", sha256=digest, scopes=[Scope.SUBSCRIBE]),
        ],
    )
    assert tokens.identify("one") == Identity(
        name="ci", scopes=frozenset({Scope.PUBLISH}), streams=("builds.*",)
    )
    assert tokens.identify("two").name == "page"
    assert code_of(tokens, digest) == "unauthorized", "the digest is no token"
    for token in ("all", "one", "two"):
        session = tokens.session_of(token)
        assert token not in session
        assert tokens.identify_session(session) == tokens.identify(token)
        assert code_of(tokens, session) == "unauthorized", "a cookie's value is no token"
    for wrong in ("", "x", "ü", tokens.session_of("one")[:-1]):
        with pytest.raises(NotAllowed):
            tokens.identify_session(wrong)


@pytest.mark.parametrize(
    "rule",
    [
        TokenRule(name="x", scopes=[Scope.ADMIN]),
        TokenRule(name="x", scopes=[Scope.ADMIN], token=ONE, sha256="0" * 64),
        TokenRule(name="x", scopes=[Scope.ADMIN], token=ONE, streams=("a*b*",)),
    ],
)
def test_a_rule_of_no_use_is_refused_without_showing_its_token(rule: TokenRule) -> None:
    with pytest.raises(InvalidRequest):
        Tokens(None, [rule])
    assert repr(rule) == "TokenRule('x')"


def test_a_jwt_says_who_may_what_and_how_long() -> None:
    end = time.time() + 60
    assert hs256.identify(signed(exp=end)) == Identity(
        name="ann",
        scopes=frozenset({Scope.PUBLISH, Scope.SUBSCRIBE}),
        streams=("orders.*",),
        expires=end,
    )
    assert hs256.identify(signed(scope=["admin"], streams="a b*")).streams == ("a", "b*")


@pytest.mark.parametrize("missing", ["scope", "streams"])
@pytest.mark.parametrize("value", [None, 5, {}, [5]])
def test_a_jwt_without_scope_or_streams_allows_nothing(missing: str, value: object) -> None:
    identity = hs256.identify(signed(**{missing: value}))
    with pytest.raises(NotAllowed) as caught:
        identity.check(Scope.SUBSCRIBE, "orders.eu", now=0.0)
    assert caught.value.code == "forbidden"


def test_a_jwt_that_is_over_is_told_so_but_only_to_who_has_a_true_one() -> None:
    assert code_of(hs256, signed(exp=time.time() - 1)) == "token_expired"
    assert code_of(hs256, signed("another secret of thirty-two bytes!!", exp=1)) == "unauthorized"


def test_leeway_lets_one_in_a_little_longer() -> None:
    lenient = Tokens(jwt_rules=JwtRules(secret=SECRET, leeway=30.0))
    end = time.time() - 10
    assert lenient.identify(signed(exp=end)).expires == end + 30


def test_one_from_a_clock_that_is_ahead_counts_at_once_and_one_that_begins_later_is_for_later() -> None:
    assert hs256.identify(signed(iat=time.time() + 30)).name == "ann", "when it was made says nothing"
    with pytest.raises(NotAllowed, match="not valid yet") as caught:
        hs256.identify(signed(nbf=time.time() + 30))
    assert (caught.value.code, caught.value.temporary) == ("unauthorized", True)
    forged = signed("another secret of thirty-two bytes!!", nbf=time.time() + 30)
    with pytest.raises(NotAllowed) as caught:
        hs256.identify(forged)
    assert not caught.value.temporary
    lenient = Tokens(jwt_rules=JwtRules(secret=SECRET, leeway=60.0))
    assert lenient.identify(signed(nbf=time.time() + 30)).name == "ann"


@pytest.mark.parametrize("exp", [None, "soon", float("inf"), float("nan"), [], 1e400])
def test_a_jwt_without_an_end_is_nobodys(exp: object) -> None:
    assert code_of(hs256, jwt.encode(CLAIMS | {"exp": exp}, SECRET)) == "unauthorized"
    assert code_of(hs256, jwt.encode(CLAIMS, SECRET)) == "unauthorized"


def test_forged_ones_are_nobodys() -> None:
    none = jwt.encode(claims(), "", "none")
    assert code_of(hs256, none) == "unauthorized"
    head, body, signature = signed().split(".")
    assert code_of(hs256, f"{head}.{body}.{signature[:-4]}AAAA") == "unauthorized"
    assert code_of(hs256, f"{head}.{jwt.encode(claims(sub='x'), 'y' * 32).split('.')[1]}.{signature}")
    assert code_of(hs256, signed() + "x" * 10_000) == "unauthorized"


@given(st.text(max_size=60))
def test_no_text_is_a_token_or_breaks_anything(text: str) -> None:
    assert code_of(hs256, f"eyJ{text}.x.y") == "unauthorized"
    with pytest.raises(NotAllowed):
        hs256.identify_session(text)


def test_where_no_jwt_is_expected_one_is_nobodys() -> None:
    tokens = Tokens("t")
    assert code_of(tokens, signed()) == "unauthorized"
    with pytest.raises(NotAllowed) as caught:
        tokens.identify_session(signed())
    assert caught.value.code == "unauthorized"


def test_issuer_and_audience_are_held_to_where_they_are_set() -> None:
    strict = Tokens(jwt_rules=JwtRules(secret=SECRET, issuer="https://id", audience="cast"))
    assert strict.identify(signed(iss="https://id", aud=["cast", "other"])).name == "ann"
    assert code_of(strict, signed(iss="https://id")) == "unauthorized"
    assert code_of(strict, signed(aud="cast")) == "unauthorized"
    assert code_of(strict, signed(iss="https://evil", aud="cast")) == "unauthorized"
    assert code_of(hs256, signed(aud="other")) == "unauthorized", "it was meant for somebody else"


def test_public_keys_verify_and_the_algorithm_is_the_keys_own(tmp_path: Path) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    path = jwks(tmp_path, public(), public(curve, "two"), public(kid="enc", use="enc"))
    tokens = Tokens(jwt_rules=JwtRules(jwks=path))
    assert tokens.identify(signed(RSA, "RS256", "one")).name == "ann"
    assert tokens.identify(signed(RSA, "RS256")).name == "ann", "without a kid"
    assert tokens.identify(signed(curve, "ES256", "two")).name == "ann"
    assert code_of(tokens, signed(RSA, "RS256", "other")) == "unauthorized"
    assert code_of(tokens, signed(RSA, "RS512", "one")) == "unauthorized"
    assert code_of(tokens, signed(rsa.generate_private_key(65537, 2048), "RS256", "one")) == "unauthorized"
    assert code_of(tokens, signed()) == "unauthorized", "no shared secret is set"


@pytest.mark.parametrize(
    "strange",
    [
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "later"},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA", "kid": "agrees"},
        {"kty": "RSA", "alg": "RSA-OAEP", "n": "AQAB", "e": "AQAB", "kid": "encrypts"},
    ],
)
def test_keys_that_are_not_understood_keep_no_other_from_use_and_are_told(
    tmp_path: Path, strange: dict[str, Any]
) -> None:
    with capture_logs() as logs:
        tokens = Tokens(jwt_rules=JwtRules(jwks=jwks(tmp_path, strange, public())))
    assert tokens.identify(signed(RSA, "RS256", "one")).name == "ann"
    (told,) = logs
    assert (told["log_level"], told["left_out"]) == ("warning", 1)
    with pytest.raises(InvalidRequest, match="no key to verify with"):
        Tokens(jwt_rules=JwtRules(jwks=jwks(tmp_path, strange)))


def test_of_several_keys_without_a_name_each_is_tried(tmp_path: Path) -> None:
    fresh = rsa.generate_private_key(65537, 2048)
    keys = [public(), public(fresh)]
    for each in keys:
        del each["kid"]
    tokens = Tokens(jwt_rules=JwtRules(jwks=jwks(tmp_path, *keys)))
    assert tokens.identify(signed(RSA, "RS256")).name == "ann"
    assert tokens.identify(signed(fresh, "RS256")).name == "ann"
    assert code_of(tokens, signed(rsa.generate_private_key(65537, 2048), "RS256")) == "unauthorized"


def test_a_public_key_is_never_taken_for_a_shared_secret(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path = jwks(tmp_path, public())
    body = {"alg": "HS256", "typ": "JWT", "kid": "one"}
    for secret in (pem, path.read_bytes(), json.dumps(public()).encode()):
        forged = jwt.api_jws.PyJWS()
        forged._algorithms["HS256"].prepare_key = lambda key: key  # type: ignore[method-assign]  # the library refuses to forge
        token = forged.encode(json.dumps(claims()).encode(), secret, "HS256", body)
        assert code_of(Tokens(jwt_rules=JwtRules(jwks=path)), token) == "unauthorized"
        assert code_of(Tokens(jwt_rules=JwtRules(secret=SECRET, jwks=path)), token) == "unauthorized"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"keys": []}',
        '{"keys": 5}',
        '{"keys": [{"kty": "RSA"}]}',
        '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
    ],
)
def test_a_file_that_is_no_jwks_is_refused_in_words(tmp_path: Path, content: str) -> None:
    path = tmp_path / "jwks.json"
    with pytest.raises(InvalidRequest, match="can't be read"):
        Tokens(jwt_rules=JwtRules(jwks=path))
    path.write_text(content)
    with pytest.raises(InvalidRequest, match="is no JWKS"):
        Tokens(jwt_rules=JwtRules(jwks=path))


def test_a_secret_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="32 bytes"):
        Tokens(jwt_rules=JwtRules(secret=SECRET[:31]))


def test_a_line_end_is_a_part_of_a_secret_as_it_is_for_who_signs_and_is_told() -> None:
    with capture_logs() as logs:
        tokens = Tokens(jwt_rules=JwtRules(secret=SECRET + "\n"))
    assert tokens.identify(signed(SECRET + "\n")).name == "ann"
    assert code_of(tokens, signed(SECRET)) == "unauthorized"
    (told,) = logs
    assert told["log_level"] == "warning"
    assert SECRET not in str(told)


def test_a_replaced_key_file_is_read_anew_and_a_broken_one_leaves_the_old_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.0)
    path = jwks(tmp_path, public())
    tokens = Tokens(jwt_rules=JwtRules(jwks=path))
    path.write_text("{")
    assert tokens.identify(signed(RSA, "RS256", "one")).name == "ann"
    fresh = rsa.generate_private_key(65537, 2048)
    jwks(tmp_path, public(fresh, "new"))
    os.utime(path, (1, 1))
    assert tokens.identify(signed(fresh, "RS256", "new")).name == "ann"
    assert code_of(tokens, signed(RSA, "RS256", "one")) == "unauthorized"
    path.unlink()
    assert tokens.identify(signed(fresh, "RS256", "new")).name == "ann"


def test_a_token_of_a_key_that_has_just_come_into_the_file_is_known_at_once(tmp_path: Path) -> None:
    path = jwks(tmp_path, public())
    tokens = Tokens(jwt_rules=JwtRules(jwks=path))
    fresh = rsa.generate_private_key(65537, 2048)
    jwks(tmp_path, public(), public(fresh, "new"))
    assert tokens.identify(signed(fresh, "RS256", "new")).name == "ann"
    again = rsa.generate_private_key(65537, 2048)
    jwks(tmp_path, public(again, "new", use="sig"))
    assert tokens.identify(signed(again, "RS256", "new")).name == "ann", "under a name that was known"
    assert code_of(tokens, signed(fresh, "RS256", "new")) == "unauthorized"


def test_a_key_file_that_cant_be_used_is_told_once_however_many_ask(tmp_path: Path) -> None:
    path = jwks(tmp_path, public())
    tokens = Tokens(jwt_rules=JwtRules(jwks=path))
    with capture_logs() as logs:
        path.write_text("{")
        for kid in map(str, range(20)):
            assert code_of(tokens, signed(RSA, "RS256", kid)) == "unauthorized"
        path.unlink()
        for kid in map(str, range(20)):
            assert code_of(tokens, signed(RSA, "RS256", kid)) == "unauthorized"
        jwks(tmp_path, public(kid="back"))
        assert tokens.identify(signed(RSA, "RS256", "back")).name == "ann"
    assert [told["log_level"] for told in logs] == ["warning", "warning", "info"]


def test_a_login_with_a_jwt_keeps_it_and_ends_with_it() -> None:
    token = signed(exp=time.time() + 60)
    session = hs256.session_of(token)
    assert hs256.identify_session(session).name == "ann"
    with pytest.raises(NotAllowed) as caught:
        hs256.identify_session(signed(exp=time.time() - 1))
    assert caught.value.code == "token_expired"


def rule(name: str, token: str, *streams: str) -> TokenRule:
    return TokenRule(name=name, token=token, scopes=[Scope.SUBSCRIBE], streams=streams or ("*",))


def test_tokens_that_are_replaced_end_who_came_in_by_them_and_leave_the_others_alone() -> None:
    tokens = Tokens("all", [rule("stays", "one"), rule("goes", "two"), rule("changes", "three")])
    came = {token: tokens.identify(token) for token in ("all", "one", "two", "three")}
    cookies = {token: tokens.session_of(token) for token in came}
    changed = rule("changes", "three", "orders.*")
    assert tokens.replace("all", [changed, rule("stays", "one"), rule("new", "four")]) == ["goes", "changes"]
    ended = {token: identity.ended(0.0) for token, identity in came.items()}
    assert [token for token, why in ended.items() if why is not None] == ["two", "three"]
    assert {why.code for why in ended.values() if why is not None} == {"token_revoked"}
    assert tokens.identify("four").name == "new"
    fresh = tokens.identify("three")
    assert (fresh.streams, fresh.ended(0.0)) == (("orders.*",), None)
    assert tokens.identify("one") is came["one"]
    assert code_of(tokens, "two") == "unauthorized"
    assert tokens.identify_session(cookies["one"]) is came["one"]
    with pytest.raises(NotAllowed):
        tokens.identify_session(cookies["two"])


def test_other_rules_for_jwts_end_those_of_the_old_ones_and_the_same_rules_end_none() -> None:
    rules = JwtRules(secret=SECRET)
    tokens = Tokens("all", jwt_rules=rules)
    ann = tokens.identify(signed())
    assert tokens.replace("all", jwt_rules=JwtRules(secret=SECRET)) == []
    assert ann.ended(0.0) is None
    assert tokens.replace("all", jwt_rules=JwtRules(secret=SECRET + "2")) == ["jwt"]
    assert code_of(tokens, signed()) == "unauthorized"
    bob = tokens.identify(signed(SECRET + "2"))
    assert tokens.replace("all") == ["jwt"]
    for identity in (ann, bob):
        why = identity.ended(0.0)
        assert why is not None
        assert why.code == "token_revoked"


@pytest.mark.parametrize(
    "given",
    [
        {"token": "t", "rules": [TokenRule(name="x", scopes=[Scope.ADMIN])]},
        {"token": "t", "jwt_rules": JwtRules(secret="short")},  # noqa: S106 - made up, and refused
        {},
    ],
)
def test_tokens_of_no_use_replace_nothing(given: dict[str, Any]) -> None:
    tokens = Tokens("all", [rule("one", "one")])
    one = tokens.identify("one")
    with pytest.raises(InvalidRequest):
        tokens.replace(**given)
    assert tokens.identify("one") is one
    assert one.ended(0.0) is None


def test_a_server_that_asked_for_nothing_does_not_begin_to_while_it_runs() -> None:
    with pytest.raises(InvalidRequest, match="restart"):
        Tokens().replace("t")
