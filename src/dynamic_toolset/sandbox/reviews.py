"""TokenReviews and SubjectAccessReviews: whose token it is, and who may use a path that is no resource's.

Tokens and rules are what a test or the demo has made known; nothing is a yes by default. Resources are never allowed.
"""

from msgspec import Struct

from dynamic_toolset.sandbox import status
from dynamic_toolset.sandbox.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Object, Resource
from dynamic_toolset.sandbox.status import Cause, StatusError

AUTHENTICATED = "system:authenticated"
"""The group that everybody is in whose token is known."""

ANONYMOUS: Object = {"username": "system:anonymous", "groups": ["system:unauthenticated"]}


class Token(Struct, frozen=True):
    """Whom a token stands for, and for which audiences it was made."""

    username: str
    groups: tuple[str, ...]
    audiences: tuple[str, ...]


class Rule(Struct, frozen=True):
    """``user`` may use ``path``; one that ends with ``*`` stands for all that begin so."""

    user: str
    path: str
    verbs: tuple[str, ...]

    def allows(self, user: str, path: str, verb: str) -> bool:
        fits = path.startswith(self.path[:-1]) if self.path.endswith("*") else path == self.path
        return fits and user == self.user and ("*" in self.verbs or verb in self.verbs)


class Reviews:
    """Answers reviews by what has been added."""

    def __init__(self) -> None:
        self.tokens: dict[str, Token] = {}
        self.rules: list[Rule] = []

    def review(self, resource: Resource, body: Object) -> Object:
        """Return the review with its answer. Raises StatusError."""
        answer = {TOKEN_REVIEWS: self._token, SUBJECT_ACCESS_REVIEWS: self._access}[resource]
        spec = body.get("spec") or {}
        return {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "metadata": {},
            "spec": spec,
            "status": answer(spec),
        }

    def _token(self, spec: Object) -> Object:
        given = spec.get("token") or ""
        if not given:
            raise status.bad_request("token is required for TokenReview in authentication")
        audiences = spec.get("audiences") or []
        # The API server makes an Authorization header of it, and looks at the second word there.
        word = f"Bearer {given}".strip().split(" ")[1:2]
        if word in ([], [""]):
            return {"authenticated": True, "user": ANONYMOUS, "audiences": audiences}
        known = self.tokens.get(word[0])
        common = [audience for audience in audiences if known and audience in known.audiences]
        if known is None or not common:
            return {"user": {}, "error": "invalid bearer token"}
        return {
            "authenticated": True,
            "user": {"username": known.username, "groups": [*known.groups, AUTHENTICATED]},
            "audiences": common,
        }

    def _access(self, spec: Object) -> Object:
        user = spec.get("user") or ""
        if not user and not spec.get("groups"):
            raise _invalid_access("spec.user", "at least one of user or group must be specified")
        asked = spec.get("nonResourceAttributes")
        if (asked is None) == (spec.get("resourceAttributes") is None):
            raise _invalid_access(
                "spec.resourceAttributes",
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )
        path, verb = ((asked or {}).get(name) or "" for name in ("path", "verb"))
        return {"allowed": asked is not None and any(rule.allows(user, path, verb) for rule in self.rules)}


def _invalid_access(field: str, why: str) -> StatusError:
    kind, group = SUBJECT_ACCESS_REVIEWS.kind, SUBJECT_ACCESS_REVIEWS.group
    return status.invalid(kind, group, "", [Cause("FieldValueInvalid", f"Invalid value: {why}", field)])
