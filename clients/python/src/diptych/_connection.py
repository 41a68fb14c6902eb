"""Where the server is and how it is reached.

Owns addresses, TLS and the API key. Deliberately absent: calls.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import grpc
from grpc import aio

Pem = Union[bytes, Path, str]
"""A PEM file's bytes, or its path (a str is a path)."""

CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    # A thousand hits with long texts are larger than gRPC's default of 4 MiB.
    ("grpc.max_receive_message_length", 256 << 20),
    ("grpc.max_send_message_length", -1),
)


@dataclass(frozen=True)
class Connection:
    """An address and what is needed to be let in."""

    address: str
    credentials: grpc.ChannelCredentials | None
    """None for a connection in the clear."""
    metadata: tuple[tuple[str, str], ...]
    """Sent with every call."""


def connection(
    address: str,
    api_key: str | None,
    root_certificates: Pem | None,
    client_certificate: Pem | None,
    client_key: Pem | None,
) -> Connection:
    """How the server at `HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT` is reached.

    TLS is used with https and where certificates are given; a private key of the client needs its certificate and the
    other way round. An API key is never sent in the clear to another machine.
    """
    scheme, _, rest = address.rpartition("://")
    rest = rest.rstrip("/")
    certificates = (root_certificates, client_certificate, client_key)
    if scheme not in ("", "http", "https") or not rest or "/" in rest:
        raise ValueError(f"{address!r} is no address of a server; write HOST:PORT or https://HOST:PORT")
    if scheme == "http" and any(each is not None for each in certificates):
        raise ValueError(f"{address!r} is in the clear, but certificates are given; write https://{rest}")
    if (client_certificate is None) != (client_key is None):
        raise ValueError("client_certificate and client_key belong together; give both or none")
    secure = scheme == "https" or root_certificates is not None or client_certificate is not None
    if api_key is not None and not secure and not _is_loopback(rest):
        raise ValueError(
            f"an API key would be sent in the clear to {rest}; write https://{rest}, with root_certificates "
            "where its certificate is your own"
        )
    credentials = None
    if secure:
        root, certificate, key = (None if each is None else _pem(each) for each in certificates)
        credentials = grpc.ssl_channel_credentials(root, key, certificate)
    metadata = (("authorization", f"Bearer {api_key}"),) if api_key is not None else ()
    return Connection(rest, credentials, metadata)


def open_channel(to: Connection) -> grpc.Channel:
    """A channel whose calls block."""
    if to.credentials is None:
        return grpc.insecure_channel(to.address, options=CHANNEL_OPTIONS)
    return grpc.secure_channel(to.address, to.credentials, options=CHANNEL_OPTIONS)


def open_async_channel(to: Connection) -> aio.Channel:
    """A channel of asyncio."""
    if to.credentials is None:
        return aio.insecure_channel(to.address, options=CHANNEL_OPTIONS)
    return aio.secure_channel(to.address, to.credentials, options=CHANNEL_OPTIONS)


def _pem(source: Pem) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0] or address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
