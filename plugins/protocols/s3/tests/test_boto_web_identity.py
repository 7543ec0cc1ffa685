"""Roles for whom another provider of identities vouches: a provider on loopback, real tokens, boto3."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config as ClientConfig
from botocore.exceptions import ClientError
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

# The authenticator and the engine are those of other packages.
pytestmark = pytest.mark.workspace

TAGS = "https://aws.amazon.com/tags"


class Issuer:
    """A provider: its keys, and how often they were asked for."""

    def __init__(self) -> None:
        self.rsa = RSAKey.generate_key(2048, {"kid": "rsa"})
        self.ec = ECKey.generate_key("P-256", {"kid": "ec"})
        self.published = [self.rsa, self.ec]
        self.reads = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.reads += 1
                if self.path == "/realm/.well-known/openid-configuration":
                    said: Any = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
                elif self.path == "/realm/keys":
                    said = KeySet(issuer.published).as_dict(private=False)
                else:
                    self.send_error(404)
                    return
                body = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.name = f"127.0.0.1:{self.server.server_port}/realm"
        self.url = f"http://{self.name}"

    def token(self, key: Any = None, algorithm: str = "RS256", **changed: Any) -> str:
        """Sign a token; None takes a claim out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": "app",
            "sub": "ada",
            "iat": now,
            "exp": now + 600,
            **changed,
        }
        key = key or self.rsa
        header = {"alg": algorithm, "kid": key.kid}
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(header, kept, key, algorithms=[algorithm])


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, run_server: Any, issuer: Issuer) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("web")
    with run_server(folder, identity_providers=("https://*", f"{issuer.url}*")) as running:
        yield running.url


def client(url: str, service: str, **key: Any) -> Any:
    key = key or {"aws_access_key_id": "ALICEKEY", "aws_secret_access_key": "alice-secret"}
    return boto3.client(service, endpoint_url=url, region_name="us-east-1", **key)


@pytest.fixture(scope="module")
def role(url: str, issuer: Issuer) -> str:
    """A role for those of the provider whose audience is `app`; it may write below its own name."""
    iam = client(url, "iam")
    provider = iam.create_open_id_connect_provider(Url=issuer.url, ClientIDList=["app", "other"])
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": provider["OpenIDConnectProviderArn"]},
        "Action": ["sts:AssumeRoleWithWebIdentity", "sts:TagSession"],
        "Condition": {"StringEquals": {f"{issuer.name}:aud": "app"}},
    }
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    made: str = iam.create_role(RoleName="web", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    allowed = [
        {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": f"arn:aws:s3:::shared/${{{issuer.name}:sub}}/${{aws:PrincipalTag/team}}/*",
        },
    ]
    iam.put_role_policy(
        RoleName="web",
        PolicyName="p",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": allowed}),
    )
    client(url, "s3").create_bucket(Bucket="shared")
    return made


@pytest.fixture
def assume(url: str, role: str) -> Callable[[str], Any]:
    sts = boto3.client(
        "sts",
        endpoint_url=url,
        region_name="us-east-1",
        config=ClientConfig(signature_version=UNSIGNED, retries={"max_attempts": 1}),
    )
    return lambda token: sts.assume_role_with_web_identity(
        RoleArn=role, RoleSessionName="session", WebIdentityToken=token
    )


def refused(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(*arguments, **named)
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "PS256"])
def test_a_token_gives_a_session_that_knows_its_claims(
    url: str, issuer: Issuer, assume: Callable[[str], Any], algorithm: str
) -> None:
    key = issuer.ec if algorithm == "ES256" else issuer.rsa
    tags = {"principal_tags": {"team": ["red"]}, "transitive_tag_keys": ["team"]}
    answer = assume(issuer.token(key, algorithm, **{TAGS: tags}))
    made = answer["Credentials"]
    s3 = client(
        url,
        "s3",
        aws_access_key_id=made["AccessKeyId"],
        aws_secret_access_key=made["SecretAccessKey"],
        aws_session_token=made["SessionToken"],
    )

    assert (answer["SubjectFromWebIdentityToken"], answer["Audience"]) == ("ada", "app")
    assert answer["Provider"].endswith(f":oidc-provider/{issuer.name}")
    s3.list_buckets()
    s3.put_object(Bucket="shared", Key="ada/red/k", Body=b"1")
    for key in ("bob/red/k", "ada/blue/k"):
        assert refused(s3.put_object, Bucket="shared", Key=key) == "AccessDenied"


def test_tokens_that_prove_nothing_are_refused(
    issuer: Issuer, assume: Callable[[str], Any]
) -> None:
    now = int(time.time())
    stranger = RSAKey.generate_key(2048, {"kid": "rsa"})
    good = issuer.token()
    head, payload, signature = good.split(".")
    for token, code in (
        (issuer.token(stranger), "InvalidIdentityToken"),
        (f"{head}.{payload}.{signature[:-6]}AAAAAA", "InvalidIdentityToken"),
        (f"{head}.{payload}.", "InvalidIdentityToken"),
        ("a.b.c", "InvalidIdentityToken"),
        ("abcdef", "InvalidIdentityToken"),
        (issuer.token(exp=now - 600), "ExpiredTokenException"),
        (issuer.token(exp=None), "InvalidIdentityToken"),
        (issuer.token(nbf=now + 600), "InvalidIdentityToken"),
        (issuer.token(sub=None), "InvalidIdentityToken"),
        (issuer.token(aud="nobody's"), "InvalidIdentityToken"),
        (issuer.token(iss="https://elsewhere.example"), "InvalidIdentityToken"),
        (issuer.token(aud="other"), "AccessDenied"),
        (issuer.token(aud=["app", "other"], azp="other"), "AccessDenied"),
        # A secret that everybody knows, the public key, must not pass for a signature.
        (_unsigned(good), "InvalidIdentityToken"),
    ):
        assert refused(assume, token) == code
    assume(good)


def _unsigned(token: str) -> str:
    """Return a token that says it needs no signature."""
    from base64 import urlsafe_b64encode

    head = urlsafe_b64encode(b'{"alg":"none","kid":"rsa"}').decode().rstrip("=")
    return f"{head}.{token.split('.')[1]}."


def test_keys_are_asked_for_once_in_a_while(issuer: Issuer, assume: Callable[[str], Any]) -> None:
    assume(issuer.token())
    before = issuer.reads
    for _ in range(3):
        assume(issuer.token())
        refused(assume, issuer.token(RSAKey.generate_key(2048, {"kid": "unknown"})))

    assert issuer.reads == before


async def test_a_new_key_is_found_after_a_while(issuer: Issuer) -> None:
    from warp_s3.iam.entities import Provider
    from warp_s3.iam.errors import QueryError
    from warp_s3.iam.oidc import AGAIN_S, WebIdentities

    now = 1000.0
    identities = WebIdentities([f"{issuer.url}*"], monotonic=lambda: now)
    provider = Provider(
        account="account:a", name=issuer.name, url=issuer.url, created_s=0, clients=("app",)
    )
    new = RSAKey.generate_key(2048, {"kid": "new"})
    await identities.verify(issuer.token(), provider, now_s=time.time())
    issuer.published.append(new)
    with pytest.raises(QueryError):
        await identities.verify(issuer.token(new), provider, now_s=time.time())
    now += AGAIN_S

    assert (await identities.verify(issuer.token(new), provider, now_s=time.time()))["sub"] == "ada"


async def test_only_addresses_that_are_allowed_are_asked(issuer: Issuer) -> None:
    from warp_s3.iam.entities import Provider
    from warp_s3.iam.errors import QueryError
    from warp_s3.iam.oidc import WebIdentities

    provider = Provider(
        account="account:a", name=issuer.name, url=issuer.url, created_s=0, clients=("app",)
    )
    before = issuer.reads
    with pytest.raises(QueryError) as caught:
        await WebIdentities(["https://*"]).verify(issuer.token(), provider, now_s=time.time())

    assert caught.value.code == "IDPCommunicationError"
    assert issuer.reads == before
