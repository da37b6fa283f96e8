"""Checksums, against published values and independent implementations."""

from __future__ import annotations

import base64
import hashlib
from email.message import Message

import pytest

from hierseg.downloads.fetch import RemoteFile


def bitwise_crc32c(data: bytes) -> int:
    """The definition, a bit at a time: polynomial 0x1EDC6F41 reflected, all ones before and after."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def headers(**values: str) -> Message:
    message = Message()
    for name, value in values.items():
        message[name.replace('_', '-')] = value
    return message


def published_checksum(headers: Message) -> tuple[str, str]:
    file = RemoteFile.of(headers)
    return file.algorithm, file.digest.hex()


MD5 = hashlib.md5(b'mask').hexdigest()
MD5_BASE64 = base64.b64encode(hashlib.md5(b'mask').digest()).decode()
CRC_BASE64 = base64.b64encode(bitwise_crc32c(b'mask').to_bytes(4, 'big')).decode()


class TestPublished:
    def test_google_names_both(self):
        found = published_checksum(headers(x_goog_hash=f'crc32c={CRC_BASE64},md5={MD5_BASE64}'))
        assert found == ('md5', MD5)

    def test_google_repeats_the_header(self):
        message = headers(x_goog_hash=f'crc32c={CRC_BASE64}')
        message['x-goog-hash'] = f'md5={MD5_BASE64}'
        assert published_checksum(message) == ('md5', MD5)

    def test_google_has_no_md5_of_files_in_parts(self, tmp_path):
        file = RemoteFile.of(headers(x_goog_hash=f'crc32c={CRC_BASE64}'))
        (tmp_path / 'a').write_bytes(b'mask')
        (tmp_path / 'b').write_bytes(b'masque')
        assert file.algorithm == 'crc32c'
        assert file.fits(tmp_path / 'a')
        assert not file.fits(tmp_path / 'b')

    def test_what_was_stored_compressed_has_another_hash(self):
        found = published_checksum(headers(x_goog_hash=f'md5={MD5_BASE64}', x_goog_stored_content_encoding='gzip'))
        assert found == ('', '')

    def test_s3_has_it_as_etag(self):
        assert published_checksum(headers(ETag=f'"{MD5}"', x_amz_request_id='1')) == ('md5', MD5)

    @pytest.mark.parametrize(
        'values',
        [
            {'ETag': f'"{MD5}"'},  # some other server, which may count or hash what it likes
            {'ETag': f'"{MD5}-16"', 'x_amz_request_id': '1'},  # uploaded in parts: a hash of hashes
            {'ETag': f'"{MD5}"', 'x_amz_request_id': '1', 'x_amz_server_side_encryption': 'aws:kms'},
            {},
        ],
    )
    def test_other_etags_are_none(self, values):
        assert published_checksum(headers(**values)) == ('', '')
