"""The page at /, and the reference of the API at /docs: files of this package, which hold nothing of a cluster."""

from importlib import resources

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from dynamic_toolset.server.conditional import entity_tag, knows

_MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

_AT_ROOT = {
    "index.html": "/",
    "reference.html": "/docs",
    **{name: f"/{name}" for name in ("page.css", "page.js", "favicon.svg", "reference.js")},
}
"""What a browser asks for first; the modules that this asks for are below /page."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline, and no text that becomes script (Content Security Policy, Level 3)."""


class File(Struct, frozen=True):
    """A file as it is served."""

    body: bytes
    media_type: str
    etag: str


def load() -> dict[str, File]:
    """Return every file of the page by its path."""
    files = {}
    for entry in resources.files("dynamic_toolset.server").joinpath("page").iterdir():
        ending = entry.name[entry.name.rfind(".") :]
        if ending in _MEDIA_TYPES:
            body = entry.read_bytes()
            files[_AT_ROOT.get(entry.name, f"/page/{entry.name}")] = File(body, _MEDIA_TYPES[ending], entity_tag(body))
    return files


def handler(files: dict[str, File]) -> HTTPRouteHandler:
    """Return what answers the paths of the files."""

    @get(sorted(files), include_in_schema=False, sync_to_thread=False)
    def page(request: Request) -> Response[bytes]:  # type: ignore[type-arg]
        file = files[request.scope["path"]]
        headers = {"etag": file.etag, "cache-control": "no-cache", "content-security-policy": POLICY}
        if knows(request.headers.get("if-none-match"), file.etag):
            return Response(b"", status_code=304, headers=headers)
        return Response(file.body, media_type=file.media_type, headers=headers)

    return page
