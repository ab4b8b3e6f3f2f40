"""What the API answers when it refuses: ``Status`` objects with code, reason, message and details.

Reasons, messages and details are those of kube-apiserver 1.36, for the requests that the contract tests make.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct, to_builtins

from dynamic_toolset.sandbox.resources import Resource


class Cause(Struct, frozen=True):
    """One thing that is wrong, and the field that it is wrong in."""

    reason: Literal[
        "FieldValueInvalid",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueForbidden",
        "FieldValueNotSupported",
        "FieldManagerConflict",
    ]
    message: str
    field: str


class StatusError(Exception):
    """The API refuses a request. ``code`` is the HTTP status, ``reason`` the machine's word for it."""

    def __init__(self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})

    def body(self) -> dict[str, Any]:
        """Return the ``Status`` object."""
        body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        body["message"] = self.message
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = self.details
        body["code"] = self.code
        return body


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


def not_found(resource: Resource, name: str) -> StatusError:
    return StatusError(404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource, name))


def no_such_path() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource")


def method_not_allowed() -> StatusError:
    return StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def already_exists(resource: Resource, name: str) -> StatusError:
    return StatusError(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', _details(resource, name))


def modified(resource: Resource, name: str) -> StatusError:
    """Return the refusal of a write whose resourceVersion is no longer the object's."""
    return conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def conflict(resource: Resource, name: str, why: str) -> StatusError:
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(resource, name))


def expired(message: str) -> StatusError:
    return StatusError(410, "Expired", message)


def too_large(limit: int) -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def unsupported_media_type(accepted: Iterable[str]) -> StatusError:
    return StatusError(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted),
    )


def forbidden(resource: Resource, name: str, why: str) -> StatusError:
    return StatusError(403, "Forbidden", f'{resource.qualified} "{name}" is forbidden: {why}', _details(resource, name))


def invalid(kind: str, group: str, name: str, causes: Iterable[Cause]) -> StatusError:
    """Return the refusal of an object, with everything that is wrong with it."""
    listed = tuple(causes)
    sentences = [f"{cause.field}: {cause.message}" for cause in listed]
    said = sentences[0] if len(sentences) == 1 else f"[{', '.join(sentences)}]"
    qualified = f"{kind}.{group}" if group else kind
    details = {"name": name, "group": group, "kind": kind}
    return StatusError(
        422,
        "Invalid",
        f'{qualified} "{name}" is invalid: {said}',
        {key: value for key, value in details.items() if value} | {"causes": to_builtins(listed)},
    )


def apply_conflict(conflicts: Mapping[str, Iterable[str]]) -> StatusError:
    """Return the refusal of an apply: for each other manager, as the API names it, the fields that it owns."""
    causes = [
        Cause("FieldManagerConflict", f"conflict with {manager}", field)
        for manager, fields in conflicts.items()
        for field in fields
    ]
    if len(causes) == 1:
        said = f"1 conflict: {causes[0].message}: {causes[0].field}"
    else:
        said = f"{len(causes)} conflicts: " + "\n".join(
            "\n".join([f"conflicts with {manager}:", *(f"- {field}" for field in fields)])
            for manager, fields in conflicts.items()
        )
    return StatusError(409, "Conflict", f"Apply failed with {said}", {"causes": to_builtins(causes)})


def _details(resource: Resource, name: str) -> dict[str, str]:
    details = {"name": name, "group": resource.group, "kind": resource.plural}
    return {key: value for key, value in details.items() if value}
