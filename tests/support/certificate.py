"""A certificate for 127.0.0.1, made where it is needed."""

import subprocess
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """One that is its own authority."""

    path: Path
    key: Path

    def redis(self, port: int) -> list[str]:
        """A Redis server's options to serve TLS at a port too, and to speak it to others."""
        options = {
            "tls-port": port,
            "tls-cert-file": self.path,
            "tls-key-file": self.key,
            "tls-ca-cert-file": self.path,
            "tls-auth-clients": "no",
            "tls-replication": "yes",
        }
        return [str(word) for name, value in options.items() for word in (f"--{name}", value)]


def make_certificate(directory: Path) -> Certificate:
    """Make one in a directory."""
    made = Certificate(directory / "certificate.pem", directory / "key.pem")
    extensions = ["subjectAltName=IP:127.0.0.1", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=parley test"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-out", str(made.path), "-keyout", str(made.key)),
            *(word for each in extensions for word in ("-addext", each)),
        ],
        check=True,
        capture_output=True,
    )
    return made
