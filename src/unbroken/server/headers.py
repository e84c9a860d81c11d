"""The headers that keep a browser from doing with a response what it was not made for: of every answer, and of the page.

The guard puts `SECURITY` on whatever leaves a server, `page` its own policy on what it serves. Nothing is decided here: what
depends on a request (cross-origin sharing, caching by tag) is said where the request is known.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LIVE_CACHING", "PAGE", "PAGE_POLICY", "SANDBOX_POLICY", "SECURITY", "with_missing"]

_FEATURES: Final = (
    *("accelerometer", "camera", "display-capture", "geolocation", "gyroscope", "hid", "microphone"),
    *("midi", "payment", "publickey-credentials-get", "serial", "usb", "xr-spatial-tracking"),
)

API_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
"""For answers that are data: shown as a document, they load, run and frame nothing."""

SANDBOX_POLICY: Final = "sandbox; default-src 'none'; frame-ancestors 'none'"
"""For bytes that anybody may have written: shown as a document, they belong to no origin either."""

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""For the page: our own files, no script in any text, and no way to make HTML or script from strings."""

SECURITY: Final = {
    "Content-Security-Policy": API_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in _FEATURES),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""On every response whose route does not say otherwise, errors among them."""

PAGE: Final = {**SECURITY, "Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}
"""On the page and its files, which hold nothing of anybody's and are revalidated each time."""

LIVE_CACHING: Final = "no-cache, no-store, no-transform"
"""On responses that stay open: nobody keeps them, nobody on the way changes (and so holds back) what they carry.

Durable Streams asks for the first of them."""

_Raw = list[tuple[bytes, bytes]]


def with_missing(raw: _Raw, wanted: dict[str, str]) -> _Raw:
    """`raw` headers of a response, and those of `wanted` that are not among them; `Vary` is added to."""
    present = {name.lower() for name, _ in raw}
    found = list(raw)
    for name, value in wanted.items():
        key = name.lower().encode("latin-1")
        if key not in present or key == b"vary":
            found.append((key, value.encode("latin-1")))
    return found
