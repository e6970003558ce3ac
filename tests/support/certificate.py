"""A certificate that a test makes for itself."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make(directory: Path, host: str) -> tuple[Path, Path]:
    """Its file and its key's, for this host."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    command += ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
