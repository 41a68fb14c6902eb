"""Addresses, certificates and what is refused before a byte is sent."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from pathlib import Path

import grpc
import pytest
from diptych import AsyncClient, Client, RetryPolicy, Unavailable
from diptych._connection import connection
from diptych._proto.diptych.v1 import retrieval_pb2 as pb

from conftest import serve


def certificate() -> tuple[bytes, bytes]:
    """A certificate of 127.0.0.1 that vouches for itself, and its key."""
    pytest.importorskip("cryptography", reason="cryptography is missing, so nothing is tested with TLS")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(local, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private


def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    public, private = certificate()
    file = tmp_path / "ca.pem"
    file.write_bytes(public)
    server, running = serve(grpc.ssl_server_credentials([(private, public)], public, True))
    running.service.answers = [pb.StatsResponse(version="7")] * 2
    try:
        address = f"https://{running.address}"
        with Client(
            address, api_key="secret", root_certificates=file, client_certificate=public, client_key=private
        ) as client:
            assert client.stats().version == "7"
        assert running.service.metadata[0]["authorization"] == "Bearer secret"

        async def story() -> None:
            async with AsyncClient(
                running.address, root_certificates=str(file), client_certificate=public, client_key=private
            ) as client:
                assert (await client.stats()).version == "7"

        asyncio.run(story())
        stranger, _ = certificate()
        once = RetryPolicy(attempts=1)
        for roots in (stranger, file):
            # One does not know the server, the other is not known to it.
            with Client(address, root_certificates=roots, retry=once) as client, pytest.raises(Unavailable):
                client.stats()
        assert len(running.service.asked) == 2
    finally:
        server.stop(None).wait()


def test_an_api_key_is_not_sent_in_the_clear() -> None:
    for local in ("localhost:1", "http://127.0.0.1:1/", "[::1]:1"):
        assert connection(local, "secret", None, None, None).credentials is None
    for far in ("example.org:1", "http://10.0.0.1:1"):
        with pytest.raises(ValueError, match="in the clear") as refused:
            Client(far, api_key="secret")
        assert "secret" not in str(refused.value)
    assert connection("https://example.org:1", "secret", None, None, None).credentials is not None


def test_addresses_that_cannot_work_are_refused_with_the_remedy() -> None:
    for wrong in ("", "ftp://a:1", "http://a:1/path"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            connection(wrong, None, None, None, None)
    with pytest.raises(ValueError, match="write https://a:1"):
        connection("http://a:1", None, b"pem", None, None)
    with pytest.raises(ValueError, match="belong together"):
        connection("a:1", None, None, b"pem", None)
