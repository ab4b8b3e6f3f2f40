"""Questions to the API about somebody else: whose token is this, and may that one do this.

Both fail closed: what is not said in so many words is a no. An answer that is none is a KubernetesError.

The questions: kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/ and
kubernetes.io/docs/reference/kubernetes-api/authorization-resources/subject-access-review-v1/.
"""

from msgspec import Struct

from dynamic_toolset.kube.client import Client
from dynamic_toolset.kube.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS

_NOBODY = ("", "system:anonymous")


class TokenIdentity(Struct, frozen=True):
    """Whom a token stands for. All of it goes into an access review: authorizers may look at any part."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = {}


class _User(Struct, frozen=True):
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] | None = None
    extra: dict[str, tuple[str, ...]] | None = None


class _TokenStatus(Struct, frozen=True):
    authenticated: bool = False
    user: _User = _User()
    audiences: tuple[str, ...] | None = None


class _TokenReview(Struct, frozen=True):
    status: _TokenStatus


class _AccessStatus(Struct, frozen=True):
    allowed: bool = False
    denied: bool = False


class _SubjectAccessReview(Struct, frozen=True):
    status: _AccessStatus


async def review_token(client: Client, token: str, audience: str) -> TokenIdentity | None:
    """Return whom ``token`` stands for; None if the API does not know it, or not as one for ``audience``.

    An API server that knows nothing of audiences names none in its answer: that is a no as well, for otherwise a token
    that was made for somebody else would be good here. So is an anonymous caller, for which the API server takes a
    token that begins with a blank, for any audience; of another one it reads what stands before the first blank.
    """
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    }
    status = (await client.create(TOKEN_REVIEWS, "", body, _TokenReview)).status
    user = status.user
    if not status.authenticated or audience not in (status.audiences or ()) or user.username in _NOBODY:
        return None
    return TokenIdentity(user.username, user.uid, user.groups or (), user.extra or {})


async def review_access(client: Client, identity: TokenIdentity, path: str, verb: str) -> bool:
    """Return whether somebody may use a path that is no resource's, as rules with ``nonResourceURLs`` say.

    ``verb`` is the HTTP method in lower case, which is how the API server itself asks about such paths.
    """
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": identity.username,
            "uid": identity.uid,
            "groups": identity.groups,
            "extra": identity.extra,
            "nonResourceAttributes": {"path": path, "verb": verb},
        },
    }
    status = (await client.create(SUBJECT_ACCESS_REVIEWS, "", body, _SubjectAccessReview)).status
    return status.allowed and not status.denied
