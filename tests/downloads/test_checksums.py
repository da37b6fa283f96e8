"""Checksums, against published values and independent implementations."""

from __future__ import annotations

import base64
import hashlib
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierseg.downloads.checksums import Checksum, published_checksum
from hierseg.downloads.crc32c import Crc32c


def bitwise_crc32c(data: bytes) -> int:
    """The definition, a bit at a time: polynomial 0x1EDC6F41 reflected, all ones before and after."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


# RFC 3720, appendix B.4, which prints the bytes least significant first.
@pytest.mark.parametrize(
    ('data', 'value'),
    [
        (bytes(32), 0x8A9136AA),
        (b'\xff' * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b'', 0),
    ],
)
def test_crc32c_of_the_standard(data, value):
    checksum = Crc32c()
    checksum.update(data)
    assert checksum.digest() == value.to_bytes(4, 'big')


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_crc32c_in_pieces_is_that_of_the_whole(pieces):
    checksum = Crc32c()
    for piece in pieces:
        checksum.update(piece)
    assert int.from_bytes(checksum.digest(), 'big') == bitwise_crc32c(b''.join(pieces))


def headers(**values: str) -> Message:
    message = Message()
    for name, value in values.items():
        message[name.replace('_', '-')] = value
    return message


MD5 = hashlib.md5(b'mask').hexdigest()
MD5_BASE64 = base64.b64encode(hashlib.md5(b'mask').digest()).decode()
CRC_BASE64 = base64.b64encode(bitwise_crc32c(b'mask').to_bytes(4, 'big')).decode()


class TestPublished:
    def test_google_names_both(self):
        found = published_checksum(headers(x_goog_hash=f'crc32c={CRC_BASE64},md5={MD5_BASE64}'))
        assert found == Checksum('md5', MD5)

    def test_google_repeats_the_header(self):
        message = headers(x_goog_hash=f'crc32c={CRC_BASE64}')
        message['x-goog-hash'] = f'md5={MD5_BASE64}'
        assert published_checksum(message) == Checksum('md5', MD5)

    def test_google_has_no_md5_of_files_in_parts(self, tmp_path):
        found = published_checksum(headers(x_goog_hash=f'crc32c={CRC_BASE64}'))
        (tmp_path / 'a').write_bytes(b'mask')
        (tmp_path / 'b').write_bytes(b'masque')
        assert found is not None
        assert found.algorithm == 'crc32c'
        assert found.fits_file(tmp_path / 'a')
        assert not found.fits_file(tmp_path / 'b')

    def test_what_was_stored_compressed_has_another_hash(self):
        found = published_checksum(headers(x_goog_hash=f'md5={MD5_BASE64}', x_goog_stored_content_encoding='gzip'))
        assert found is None

    def test_s3_has_it_as_etag(self):
        assert published_checksum(headers(ETag=f'"{MD5}"', x_amz_request_id='1')) == Checksum('md5', MD5)

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
        assert published_checksum(headers(**values)) is None
