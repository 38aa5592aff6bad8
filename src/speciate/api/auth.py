"""Who is calling. Knows keys and tenants; knows nothing of quotas."""

import hashlib
import hmac
from collections.abc import Mapping

from speciate.api.options import ApiKey
from speciate.core.errors import Unauthorized


class KeyRing:
    """The configured keys, kept as digests so that comparing takes the same time whatever was sent."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self._tenants = tuple((_digest(k.key.encode()), k.tenant) for k in keys)

    def tenant(self, headers: Mapping[bytes, bytes]) -> str | None:
        """The tenant whose key was sent; None when no keys are configured. Raises Unauthorized."""
        if not self._tenants:
            return None
        sent = _sent_key(headers)
        if not sent:
            raise Unauthorized(
                "No API key was sent. Send it as `Authorization: Bearer KEY` or in the `x-api-key` header."
            )
        digest = _digest(sent)
        tenant = None
        for known, owner in self._tenants:
            if hmac.compare_digest(known, digest):
                tenant = owner
        if tenant is None:
            raise Unauthorized("The API key sent is not one that this server knows. Ask its operator for one.")
        return tenant


def _sent_key(headers: Mapping[bytes, bytes]) -> bytes:
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and credentials:
        return credentials.strip()
    return headers.get(b"x-api-key", b"").strip()


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
