"""Why a check failed, in words for the person who has to mend it. A backend's own words are not among them."""

import os
import re
import ssl
from urllib.parse import urlsplit

MAX_LENGTH = 200

_UNTRUSTED = frozenset({18, 19, 20, 21})
"""OpenSSL's codes for a chain that ends nowhere we trust (X509_verify_cert_error_string(3)): a CA file helps there.
With the others (expired, not yet valid, another host's) it does not."""


class Failed(Exception):
    """A check has failed. The message is the reason: our words, none of the backend's."""


def one_line(text: str) -> str:
    """Return the text as one printable line of at most ``MAX_LENGTH`` characters."""
    line = "".join(character if character.isprintable() else "?" for character in text)
    return line if len(line) <= MAX_LENGTH else line[: MAX_LENGTH - 3] + "..."


def of_error(error: OSError | ValueError) -> str:
    """Return what went wrong between us and a backend."""
    match error:
        case ssl.SSLCertVerificationError():
            return _of_certificate(error)
        case ssl.SSLError():
            detail = getattr(error, "reason", None) or "no reason given"
            return f"TLS failed: {str(detail).replace('_', ' ').lower()}; does it speak https here?"
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
        case ValueError():
            return "the check cannot be sent: its URL or one of its headers is malformed"
        case _:
            return "connection failed"


def _of_certificate(error: ssl.SSLCertVerificationError) -> str:
    what = error.verify_message.rstrip(".")
    if error.verify_code in _UNTRUSTED:
        return f"certificate not trusted: {what} (set healthCheck.caFile to its CA, or healthCheck.verifyTls to false)"
    return f"certificate not valid: {what} (renew it, or set healthCheck.verifyTls to false)"


_HOST = re.compile(r"[A-Za-z0-9.:-]{1,253}")


def of_redirect(location: str) -> str:
    """Return where a redirect leads, as far as that can be shown: the host, if it looks like one."""
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = ""
    if host is None:
        return "redirects to another path (redirects are not followed)"
    return f"redirects to {host if _HOST.fullmatch(host) else 'elsewhere'} (redirects are not followed)"
