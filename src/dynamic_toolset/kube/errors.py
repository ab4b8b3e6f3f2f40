"""What can go wrong when speaking to a Kubernetes API, as a tree of types.

::

    KubernetesError
    ├── ConnectionFailed      no answer at all: refused, reset, no name, TLS, timeout
    ├── InvalidAnswer         an answer that is not what the API promises
    │   └── AnswerTooLong     more than is read
    ├── ConfigurationError    no usable address or credentials
    └── ApiError              the API answered with a Status: code, reason, message
        ├── BadRequest 400, Unauthorized 401, Forbidden 403, NotFound 404, Conflict 409, Gone 410,
        │   TooLarge 413, Invalid 422, TooManyRequests 429
        └── ServerError 5xx

Reasons and codes: kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/.
"""


class KubernetesError(Exception):
    """Base of every error that this package raises."""


class ConnectionFailed(KubernetesError):
    """The API gave no answer: refused, reset, unresolvable, TLS failure, or silent past the deadline."""


class InvalidAnswer(KubernetesError):
    """The API answered with something that is not an object, a list or a Status."""


class AnswerTooLong(InvalidAnswer):
    """The answer was longer than what is read of one."""


class ConfigurationError(KubernetesError):
    """There is no way to reach or to authenticate to an API. The message says what was looked for, and where."""


class ApiError(KubernetesError):
    """The API refused a request.

    ``code`` is the HTTP status, ``reason`` the machine's word for it (``Conflict``, ``Expired``), ``message`` the
    API's sentence, and ``retry_after`` the seconds it asked us to wait, where it did. ``causes`` are the words for what
    exactly is in the way (``NamespaceTerminating``), where it says.
    """

    def __init__(
        self, code: int, reason: str, message: str, retry_after: float | None = None, causes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(f"{code} {reason}: {message}" if message else f"{code} {reason}")
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.causes = causes


class BadRequest(ApiError): ...


class Unauthorized(ApiError): ...


class Forbidden(ApiError): ...


class NotFound(ApiError): ...


class Conflict(ApiError):
    """The object has changed since it was read, or exists already."""


class Gone(ApiError):
    """The resourceVersion or continue token is older than what the API still knows."""


class TooLarge(ApiError): ...


class Invalid(ApiError):
    """The object does not pass the API's validation or admission."""


class TooManyRequests(ApiError): ...


class ServerError(ApiError): ...


_BY_CODE: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: TooLarge,
    422: Invalid,
    429: TooManyRequests,
}


def api_error(
    code: int, reason: str, message: str, retry_after: float | None = None, causes: tuple[str, ...] = ()
) -> ApiError:
    """Return the error type that belongs to an HTTP status."""
    kind = _BY_CODE.get(code, ServerError if code >= 500 else ApiError)
    return kind(code, reason, message, retry_after, causes)
