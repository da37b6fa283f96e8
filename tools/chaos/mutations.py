"""Mutations of files: of any bytes, of text, and of formats whose checks would stop blind damage at the door.

Each takes the content, a generator and the contents of other files, and gives the new content and its name.
"""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random, Sequence[bytes]], bytes]

NUMBERS = (
    '-1', '0', '1', '-0.0', '0.5', '1.0000000000000002', '255', '65536', '2147483647', '2147483648', '-2147483649',
    '4294967296', '9223372036854775807', '9223372036854775808', '18446744073709551616', '1e308', '1e309', '-1e309',
    'NaN', 'nan', 'Infinity', '-inf', '1e-320', '0x10', '1_000', '١٢', '٣.٥', '+1', '1,5', '30000000', '60000',
    '9' * 400, '9' * 4301, '1' + '0' * 5000, '',
)  # fmt: skip
TEXTS = (
    '', ' ', '\x00', '\x1b[31mred\x1b[0m', '../../etc/passwd', '/etc/passwd', 'C:\\x', 'a' * 5000, 'é' * 300, '\ufeff',
    '\ud800', '\u202egnp.exe', '=1+1', 'null', '"', "'", '\n', ',', 'a/b', '.', '..', '%s%n{0}', 'NUL', '\U0001f9f8',
)  # fmt: skip
BOMB_MEBIBYTES = 2560
DEPTHS = (50, 500, 1_000, 100_000)


def mutated(content: bytes, suffix: str, generator: Random, others: Sequence[bytes]) -> tuple[bytes, str]:
    """The content after one to three mutations that suit the suffix, and their names."""
    names = []
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        kinds = [*ANY, *(kind for endings, some in OF_FORMAT if suffix in endings for kind in some * 2)]
        kind = generator.choice(kinds)
        content = kind(content, generator, others)
        names.append(kind.__name__)
    return content, ' + '.join(names)


@cache
def zeros_deflated() -> bytes:
    """A raw deflate stream of 2.5 GiB of zeros, a thousandth of its length; made of the same block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first, block = (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + block * (BOMB_MEBIBYTES - 1) + packer.flush()


@cache
def zeros_zlib() -> bytes:
    """The same with the head and the checksum of zlib."""
    count = BOMB_MEBIBYTES << 20
    return b'\x78\x01' + zeros_deflated() + struct.pack('>I', (count % 65521) << 16 | 1)


def _span(content: bytes, generator: Random) -> tuple[int, int]:
    """Beginning and end of a stretch, most often a short one."""
    start = generator.randrange(len(content) + 1)
    return start, min(len(content), start + int(2 ** generator.uniform(0, 12)))


def truncate(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Cuts the end off."""
    return content[
        : generator.choice((0, 1, len(content) // 2, len(content) - 1, generator.randrange(len(content) + 1)))
    ]


def flip_bits(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Turns a few bits."""
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 8))):
        if changed:
            changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def overwrite(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Puts random bytes, one value, or an extreme integer over a stretch."""
    start, end = _span(content, generator)
    filling = generator.choice(
        (
            generator.randbytes(end - start),
            bytes([generator.randrange(256)]) * (end - start),
            b'\x00' * (end - start),
            generator.choice((b'\xff', b'\x7f')) * min(8, end - start),
            struct.pack('<q', generator.choice((-1, 2**31 - 1, 2**31, 2**40, 2**62)))[: len(content) - start],
        )
    )
    return content[:start] + filling + content[start + len(filling) :]


def insert(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Puts random bytes, NULs or a text in between."""
    start = generator.randrange(len(content) + 1)
    text = generator.choice(TEXTS).encode('utf-8', 'surrogatepass')
    return content[:start] + generator.choice((generator.randbytes(9), b'\x00' * 64, text)) + content[start:]


def remove(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Takes a stretch out."""
    start, end = _span(content, generator)
    return content[:start] + content[end:]


MOST_ADDED = 64 << 20
"""Bytes that a mutation may make of what earlier ones left, which would grow without end."""


def repeat(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Writes a stretch, or all, several times."""
    start, end = generator.choice((_span(content, generator), (0, len(content))))
    times = generator.choice((1, 2, 50))
    if times * (end - start) > MOST_ADDED:
        times = 1
    return content[:end] + content[start:end] * times + content[end:]


def splice(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Goes on with the content of another file."""
    other = generator.choice(others) if others else b''
    start, at = generator.randrange(len(content) + 1), generator.randrange(len(other) + 1)
    return content[:start] + other[at:]


def swap(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Takes another file in its place."""
    return generator.choice(others) if others else b''


def encode_anew(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Writes text in another encoding, with a byte order mark, or with other ends of lines."""
    text = content.decode('latin-1')
    return generator.choice(
        (
            text.encode('utf-16'),
            text.encode('utf-32'),
            b'\xef\xbb\xbf' + content,
            content.replace(b'\n', b'\r\n'),
            content.replace(b'\n', b'\r'),
            text.encode('utf-8') + b'\xff',
        )
    )


ANY: tuple[Mutation, ...] = (
    truncate, flip_bits, flip_bits, overwrite, overwrite, insert, remove, repeat, splice, swap, encode_anew,
)  # fmt: skip


def number(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Writes another number, or none, in place of one."""
    found = [match.span() for match in re.finditer(rb'-?\d+(?:\.\d+)?(?:e-?\d+)?', content)]
    if not found:
        return content
    start, end = generator.choice(found)
    return content[:start] + generator.choice(NUMBERS).encode() + content[end:]


def word(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Writes another word, or a strange text, in place of one."""
    found = [match.span() for match in re.finditer(rb'[\w/.]+', content)]
    if not found:
        return content
    (start, end), (a, b) = generator.choice(found), generator.choice(found)
    strange = generator.choice(TEXTS).encode('utf-8', 'surrogatepass')
    return content[:start] + generator.choice((content[a:b], strange)) + content[end:]


def nest(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Puts brackets in brackets, far down."""
    opening, closing = generator.choice(((b'[', b']'), (b'{"a":', b'}'), (b'- ', b''), (b'(', b')')))
    depth = generator.choice(DEPTHS)
    start, end = _span(content, generator)
    return content[:start] + opening * depth + b'1' + closing * generator.choice((depth, depth - 1)) + content[end:]


def csv_cells(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Takes a column out, exchanges two, or writes another cell."""
    rows = [line.split(b',') for line in content.split(b'\n')]
    width = max(map(len, rows))
    one, other = generator.randrange(width), generator.randrange(width)
    act = generator.randrange(4)
    if act == 0:
        rows = [[cell for at, cell in enumerate(row) if at != one] for row in rows]
    elif act == 1:
        for row in rows:
            if max(one, other) < len(row):
                row[one], row[other] = row[other], row[one]
    else:
        row = generator.choice(rows)
        strange = generator.choice((*NUMBERS, *TEXTS, 'x' * 140_000)).encode('utf-8', 'surrogatepass')
        row[generator.randrange(len(row))] = strange if act == 2 else generator.choice(rows)[0]
    return b'\n'.join(map(b','.join, rows))


def csv_rows(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Shuffles, repeats or drops rows, opens a quote, or makes the header long."""
    lines = content.split(b'\n')
    at = generator.randrange(len(lines))
    act = generator.randrange(5)
    if act == 0:
        generator.shuffle(lines)
    elif act == 1:
        lines.insert(at, generator.choice(lines))
    elif act == 2:
        del lines[at]
    elif act == 3:
        lines[at] = b'"' + lines[at]
    else:
        lines[0] += b',' + b'x' * generator.choice((1_000, 140_000, 2_000_000))
    return b'\n'.join(lines)


def csv_mask(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Writes a mask that unpacks to far more than it claims, or to no run lengths, in place of the longest text."""
    found = max(re.findall(rb'[A-Za-z0-9+/=]{12,}', content), key=len, default=b'')
    unpacked = generator.choice((generator.randbytes(50), b'o' * 1000, b'\x00', b'PPYP4', b'0' * 10**6))
    packed = generator.choice((zeros_zlib(), zlib.compress(unpacked), zlib.compress(unpacked)))
    return content.replace(found, base64.b64encode(packed), 1) if found else content


def _nodes(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all nodes of a JSON document."""
    found = [path]
    if isinstance(document, dict | list):
        pairs = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in pairs:
            found += _nodes(value, (*path, key))
    return found


def _strange(generator: Random) -> Any:
    """A value of JSON that few expect."""
    return generator.choice(
        (
            None, True, [], {}, [[]], {'a': {}}, [None] * 3, generator.choice(TEXTS), generator.choice(NUMBERS), -1, 0,
            1.5, -0.0, 2**31, 2**63, 2**64, -(2**70), 10**400, float('nan'), float('inf'), 1e308, 30_000_000, 'x' * 99,
            list(range(1000)), [1e308, 1e308], {'size': [60_000, 60_000], 'counts': [0, 3_600_000_000]},
            {'size': [8, 12], 'counts': 'PPYo1'}, [[0, 0, 1e18, 1e18, 5, 5]], [30_000_000, 30_000_000],
        )
    )  # fmt: skip


def json_node(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Replaces, removes, renames or repeats a node."""
    try:
        document = json.loads(content)
        nodes = _nodes(document)
    except (ValueError, RecursionError):
        return number(content, generator, others)
    path = generator.choice(nodes)
    if not path:
        return json.dumps(generator.choice((_strange(generator), [document], {'a': document}))).encode()
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    key, act = path[-1], generator.randrange(5)
    if act == 0:
        del parent[key]
    elif act == 1 and isinstance(parent, dict):
        parent[generator.choice(TEXTS)] = parent.pop(key)
    elif act == 2 and isinstance(parent, list):
        parent.extend([parent[key]] * generator.choice((1, 100)))
    elif act == 3:
        node = document
        for step in generator.choice(nodes):
            node = node[step] if node is not parent else node
            if not isinstance(node, dict | list):
                break
        parent[key] = json.loads(json.dumps(node)) if node is not parent else None
    else:
        parent[key] = _strange(generator)
    return json.dumps(document).encode()


def json_key_twice(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Says a key twice."""
    found = [match.span() for match in re.finditer(rb'"\w+": ?[^,{}\[\]]+', content)]
    if not found:
        return content
    start, end = generator.choice(found)
    return content[:end] + b', ' + content[start:end] + content[end:]


def yaml_tricks(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Adds aliases that multiply, a tag that names a Python object, an anchor in itself, a tab, or many classes."""
    bomb = b'a0: &a0 [x, x, x, x, x, x, x, x, x]\n'
    bomb += b''.join(b'a%d: &a%d [%s]\n' % (i, i, b', '.join([b'*a%d' % (i - 1)] * 9)) for i in range(1, 12))
    many = b''.join(b'c%d: p%d\n' % (i, i % 700) for i in range(generator.choice((2_000, 20_000))))
    return content + generator.choice(
        (
            bomb, b'x: !!python/object/apply:os.system ["touch ran"]\n', b'x: &x [*x]\n', b'\tx: y\n', many,
            b'2001-01-01: 1e3\n', b'? [a, b]\n: c\n', b'<<: {a: b}\n', b'---\na: b\n', b'x: 0x1F\ny: 1:30\n',
        )
    )  # fmt: skip


def png_header(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Claims another size, depth, colour or interlacing, with the checksum mended."""
    if content[:4] != b'\x89PNG' or len(content) < 33:
        return content
    fields = list(struct.unpack('>IIBBBBB', content[16:29]))
    at = generator.randrange(7)
    fields[at] = generator.choice((0, 1, 46_400, 2**31 - 1, 2**32 - 1, 60_000) if at < 2 else (0, 1, 2, 3, 4, 6, 8, 16))
    if at < 2 and generator.random() < 0.5:
        fields[1 - at] = fields[at]
    header = b'IHDR' + struct.pack('>IIBBBBB', *fields)
    return content[:12] + header + struct.pack('>I', zlib.crc32(header)) + content[33:]


def png_chunk(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Adds a chunk with a checksum of its own: pixels without end, compressed text, a palette, transparency."""
    zeros = zeros_zlib()
    kind, data = generator.choice(
        (
            (b'IDAT', zeros), (b'zTXt', b'a\x00\x00' + zeros), (b'iCCP', b'a\x00\x00' + zeros), (b'PLTE', bytes(768)),
            (b'tRNS', b'\x00\x01'), (b'eXIf', generator.randbytes(40)), (b'IEND', b''), (b'acTL', bytes(8)),
        )
    )  # fmt: skip
    chunk = struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    return content[:33] + chunk + content[33:]


def jpeg_header(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Claims another size or number of components."""
    at = max(content.find(b'\xff\xc0'), content.find(b'\xff\xc2'))
    if at < 0 or len(content) < at + 10:
        return content
    sides = struct.pack('>HH', *(generator.choice((0, 1, 8, 65_500, 65_535)) for _ in range(2)))
    return content[: at + 5] + sides + bytes([generator.choice((0, 1, 3, 4, 255))]) + content[at + 10 :]


def _members(content: bytes) -> list[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST_ADDED:  # an earlier mutation's bomb
                return []
            return [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:  # whatever earlier damage makes of it
        return []


def _zip(members: Sequence[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w', compression) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return packed.getvalue()


def zip_directory(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Changes a field of an entry of the directory or of its end: sizes, offsets, counts, flags, method, times."""
    marks = (b'PK\x01\x02', b'PK\x05\x06', b'PK\x03\x04')
    places = [match.start() for mark in marks for match in re.finditer(re.escape(mark), content)]
    if not places:
        return content
    at = generator.choice(places) + generator.choice((4, 6, 8, 10, 12, 16, 20, 24, 28, 30, 32, 42))
    extreme = generator.choice((b'\xff\xff\xff\xff', b'\x00\x00\x00\x00', b'\xff\xff\xff\x7f', generator.randbytes(4)))
    return content[:at] + extreme[: generator.choice((1, 2, 4))] + content[at + 4 :]


def zip_members(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Packs it anew: members renamed, exchanged, damaged with sound checksums, without end, twice, or outside."""
    members = _members(content)
    if not members:
        return content
    at, act = generator.randrange(len(members)), generator.randrange(6)
    name, data = members[at]
    if act == 0:
        members[at] = (generator.choice(('../' + name, '/' + name, name.upper(), name + '/', '')), data)
    elif act == 1:
        members[at] = (name, generator.choice(members)[1])
    elif act == 2:
        suffix = '.' + name.rpartition('.')[2]
        members[at] = (name, mutated(data, suffix, generator, others)[0])
    elif act == 3:
        return _zip_of_zeros(name)
    elif act == 4:
        members.append(members[at])
    else:
        del members[at]
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    return _zip(members, generator.choice(methods))


RESEALED = ('zip_members',)
"""Ways that give the file sound checksums again: what comes of it is another file, not a damaged one."""


def _zip_of_zeros(name: str) -> bytes:
    """An archive of one member, 2.5 GiB of zeros."""
    data, encoded = zeros_deflated(), name.encode()
    about = struct.pack('<HHHHHIIIHH', 20, 0, 8, 0, 33, 0, len(data), BOMB_MEBIBYTES << 20, len(encoded), 0)
    local = b'PK\x03\x04' + about + encoded + data
    entry = b'PK\x01\x02\x14\x00' + about + struct.pack('<HHHII', 0, 0, 0, 0, 0) + encoded
    end = b'PK\x05\x06' + struct.pack('<HHHHIIH', 0, 0, 1, 1, len(entry), len(local), 0)
    return local + entry + end


MARKER = 'code_of_a_file_ran'
"""The file that a pickle makes if somebody runs what it says."""


def pickled_code(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Puts a pickle that makes a file in place of a checkpoint's own, or of all of it."""
    code = b"cposix\nsystem\n(S'touch %s'\ntR." % MARKER.encode()
    members = [(name, code if name.endswith('data.pkl') else data) for name, data in _members(content)]
    return generator.choice((code, _zip(members) if members else code))


def line(content: bytes, generator: Random, others: Sequence[bytes]) -> bytes:
    """Takes a line out, moves it, or writes one of another language."""
    lines = content.split(b'\n')
    at = generator.randrange(len(lines))
    act = generator.randrange(3)
    if act == 2:
        strange = (
            b'{"a":',
            b'[]',
            b'null',
            b'"text"',
            b'1',
            b'print(',
            b'x = (1',
            b'\tx = 1',
            b'import nothing_at_all',
        )
        lines[at] = generator.choice(strange)
    else:
        taken = lines.pop(at)
        if act == 1:
            lines.insert(generator.randrange(len(lines) + 1), taken)
    return b'\n'.join(lines)


TEXT: tuple[Mutation, ...] = (number, number, word, nest, line)
OF_FORMAT: tuple[tuple[tuple[str, ...], tuple[Mutation, ...]], ...] = (
    (('.csv', '.json', '.yaml', '.py', ''), TEXT),
    (('.csv',), (csv_cells, csv_cells, csv_rows, csv_rows, csv_mask)),
    (('.json',), (json_node, json_node, json_node, json_key_twice)),
    (('.yaml',), (yaml_tricks, yaml_tricks)),
    (('.png',), (png_header, png_header, png_chunk)),
    (('.jpg',), (jpeg_header,)),
    (('.zip',), (zip_directory, zip_directory, zip_members, zip_members)),
    (('.pth',), (zip_directory, zip_members, pickled_code)),
)
"""Endings, and the mutations that know their format."""
