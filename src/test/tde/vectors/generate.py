#!/usr/bin/env python3
"""Makes the vectors of Coffer's own constructions.

This is a second implementation of doc/page-format.md, doc/key-format.md and
doc/wal-format.md, written from these documents, on Python's "cryptography" package (Debian:
python3-cryptography).  It is not run by the tests: its output is committed,
and a change of that output is a change of a format.

    ./generate.py           rewrites page.txt, key_record.txt, scope.txt,
                            providers.txt and wal.txt beside it
    ./generate.py --check   says whether they are what it would write
"""
import hashlib
import os
import struct
import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CIPHERS = {'aes_128_xts': (1, 32), 'aes_256_xts': (2, 64),
           'aes_128_cbc': (3, 32), 'aes_256_cbc': (4, 64)}
FORKS = {'main': 0, 'fsm': 1, 'vm': 2, 'init': 3}


def aes(key, mode, data):
    """Encrypt whole blocks."""
    e = Cipher(algorithms.AES(key), mode).encryptor()
    return e.update(data) + e.finalize()


def crc32c(data):
    """CRC-32C (Castagnoli), bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def pattern(length, seed):
    """The bytes that tests encrypt: the high bytes of an LCG."""
    out = bytearray()
    x = seed
    for _ in range(length):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(x >> 24)
    return bytes(out)


def with_crc(data):
    return data + struct.pack('<I', crc32c(data))


def cases_to_text(title, cases):
    text = '# ' + '\n# '.join(title) + '\n'
    for case in cases:
        text += '\n'
        for name, value in case:
            if isinstance(value, (bytes, bytearray)):
                value = value.hex()
            text += '%s = %s\n' % (name, value)
    return text


# ---- page ----

def encrypt_page(cipher, key, lsn, block, fork, body):
    """What stands after the header; body is that of the plain page."""
    k1, k2 = key[:len(key) // 2], key[len(key) // 2:]
    fork = 0 if fork == 3 else fork
    tweak = [struct.pack('<QIBBH', lsn, block, fork, domain, 0)
             for domain in (0, 1)]
    mask = aes(k2, modes.ECB(), tweak[1])[:8]
    masked = bytes(a ^ b for a, b in zip(body[:8], mask))
    if cipher.endswith('xts'):
        return masked + aes(k1 + k2, modes.XTS(tweak[0]), body[8:])
    iv = aes(k2, modes.ECB(), tweak[0])
    return masked + aes(k1, modes.CBC(iv), body[8:])


def page_cases():
    places = [(0x123456789ABCDEF0, 42, 'main'),
              (0x123456789ABCDEF0, 42, 'init'),
              (0x123456789ABCDEF0, 42, 'fsm'),
              (0x123456789ABCDEF0, 42, 'vm'),
              (0, 0, 'main'),
              (1, 0xFFFFFFFE, 'main'),
              (0xFFFFFFFFFFFFFFFF, 1, 'vm')]
    grid = [(8192, c, p) for c in CIPHERS for p in places]
    grid += [(size, c, places[0]) for size in (1024, 2048, 4096, 16384, 32768)
             for c in CIPHERS]
    for size, cipher, (lsn, block, fork) in grid:
        key = bytes(range(CIPHERS[cipher][1]))
        body = pattern(size - 24, 1)
        out = encrypt_page(cipher, key, lsn, block, FORKS[fork], body)
        yield [('test', 'page'), ('blcksz', size), ('cipher', cipher),
               ('key', key), ('lsn', '%016x' % lsn), ('block', block),
               ('fork', fork), ('seed', 1), ('head', out[:40]),
               ('sha256', hashlib.sha256(out).digest())]


# ---- key record ----

def key_record(scope_key, iv, cipher, key, spc, db, rel, ident, generation,
               created):
    number, key_len = CIPHERS[cipher]
    header = struct.pack('<4sHHIBBHIII36s', b'CFKR', 1, 256, 0, 1, 1, 0,
                         spc, db, rel, b'')
    entry = ident + generation + struct.pack('<QBB10s', created, number,
                                             key_len, b'')
    rest = bytes(44)
    assert len(header) == 64 and len(entry) == 52
    sealed = AESGCM(scope_key).encrypt(iv, key.ljust(64, b'\0'),
                                       header + entry + rest)
    return with_crc(header + entry + iv + sealed + rest)


def key_record_cases():
    for i, (cipher, (_, key_len)) in enumerate(CIPHERS.items()):
        scope_key = pattern(32, 100 + i)
        iv = pattern(12, 200 + i)
        key = pattern(key_len, 300 + i)
        ident = pattern(16, 400 + i)
        generation = pattern(16, 500 + i)
        spc, db, rel = (1663, 5, 16384 + i) if i else (1664, 0, 4294967295)
        created = 1767225600000000 + i
        yield [('test', 'key_record'), ('scope_key', scope_key),
               ('cipher', cipher), ('key', key), ('spc', spc), ('db', db),
               ('rel', rel), ('id', ident), ('generation', generation),
               ('created', created),
               ('record', key_record(scope_key, iv, cipher, key, spc, db, rel,
                                     ident, generation, created))]


# ---- scope ----

def scope_file(principal, kind, flags, db, ident, change, created,
               provider_id, provider, name, generations,
               embedded=(bytes(16), b'', b'', 0), version=2):
    uuid, provider_type, options, list_change = embedded
    kek = HKDF(hashes.SHA256(), 32, ident,
               b'coffer scope key wrap v1').derive(principal)
    tail = provider + name + provider_type + options
    for g_id, number, g_created, key, iv in generations:
        aad = (struct.pack('<B3xI', kind, db) + ident + g_id +
               struct.pack('<IQ', number, g_created))
        tail += (g_id + struct.pack('<IQ', number, g_created) + iv +
                 AESGCM(kek).encrypt(iv, key, aad))
    header = struct.pack('<4sHBBII16sQQiHHI', b'CFSC', version, kind, flags,
                         (64 if version == 1 else 88) + len(tail) + 4, db,
                         ident, change, created, provider_id, len(provider),
                         len(name), len(generations))
    if version == 1:
        header += bytes(4)
    else:
        header += struct.pack('<HBx16sQ', len(options), len(provider_type),
                              uuid, list_change)
    return with_crc(header + tail)


def scope_cases():
    # kind, flags (1: follows the default key, 2: retired), ..., version,
    # what is embedded of the provider
    none = (bytes(16), b'', b'', 0)
    shapes = [(1, 0, 5, 1, b'vault', b'app-key', 1, 32, 1, none),
              (1, 1, 4294967295, -2, 'schl\u00fcssel'.encode(), b'k', 3, 16,
               1, none),
              (2, 0, 0, -1, b'p' * 126, b'n' * 255, 2, 24, 1, none),
              (1, 2, 6, 7, b'p', b'n', 1, 32, 1, none),
              (3, 0, 0, -2147483648, b'p', b'default', 1, 64, 1, none),
              (1, 0, 5, 1, b'ring', b'app-key', 1, 32, 2,
               (pattern(16, 650), b'file', b'{"path": "/keys/one"}', 9)),
              (1, 1, 4294967295, -2, 'schl\u00fcssel'.encode(), b'k', 3, 16,
               2, (pattern(16, 651), b'kmip', b'', 1 << 40)),
              (2, 0, 0, -1, b'p' * 126, b'n' * 255, 2, 24, 2,
               (pattern(16, 652), b't' * 31, b'o' * 1023, 1)),
              (1, 2, 6, 7, b'p', b'n', 1, 32, 2, none),
              (3, 0, 0, -3, b'p', b'default', 1, 64, 2,
               (bytes(16), b'file', b'{}', 3))]
    for i, (kind, flags, db, provider_id, provider, name, n,
            principal_len, version, embedded) in enumerate(shapes):
        principal = pattern(principal_len, 600 + i)
        ident = pattern(16, 700 + i)
        change = 1 << (i % 5 * 15)
        created = 1767225600000000 + i
        generations = [(pattern(16, 800 + 10 * i + g), 2 * g + 1,
                        1767225600000000 + g, pattern(32, 900 + 10 * i + g),
                        pattern(12, 1000 + 10 * i + g)) for g in range(n)]
        case = [('test', 'scope'), ('version', version),
                ('principal', principal), ('kind', kind),
                ('follows_default', flags & 1),
                ('retired', flags >> 1), ('db', db), ('id', ident),
                ('change', change), ('created', created),
                ('provider_id', provider_id),
                ('provider_name', provider.decode()),
                ('key_name', name.decode()), ('uuid', embedded[0]),
                ('type', embedded[1].decode()),
                ('options', embedded[2].decode()),
                ('list_change', embedded[3])]
        for g_id, number, g_created, key, _ in generations:
            case += [('generation', g_id), ('number', number),
                     ('generation_created', g_created), ('key', key)]
        case.append(('file', scope_file(principal, kind, flags, db, ident,
                                        change, created, provider_id,
                                        provider, name, generations,
                                        embedded, version)))
        yield case


# ---- providers ----

def providers_file(db, list_id, change, last_id, providers, version=2):
    tail = b''
    for ident, uuid, kind, name, options in providers:
        tail += struct.pack('<iBBH', ident, len(kind), len(name),
                            len(options))
        tail += (uuid if version > 1 else b'') + kind + name + options
    return with_crc(struct.pack('<4sHHIIQiI', b'CFPV', version, 0,
                                48 + len(tail) + 4, db, change, last_id,
                                len(providers)) + list_id + tail)


def providers_cases():
    shapes = [(0, 0, 0, []),
              (5, 7, 9, [(1, b'file', b'one', b'{"path": "/keys/one"}'),
                         (9, b'kmip', 'schl\u00fcssel'.encode(), b'')]),
              (0, 1 << 40, -2147483648,
               [(-3, b't' * 31, b'n' * 126, b'o' * 1023),
                (-2147483648, b'v', b'w', b'{}')])]
    for version in (1, 2):
        for i, (db, change, last_id, shape) in enumerate(shapes):
            providers = [(ident, pattern(16, 1150 + 10 * i + n)
                          if version > 1 else bytes(16), kind, name, options)
                         for n, (ident, kind, name,
                                 options) in enumerate(shape)]
            list_id = pattern(16, 1100 + i)
            case = [('test', 'providers'), ('version', version), ('db', db),
                    ('id', list_id), ('change', change), ('last_id', last_id)]
            for ident, uuid, kind, name, options in providers:
                case += [('provider', ident), ('uuid', uuid),
                         ('type', kind.decode()), ('name', name.decode()),
                         ('options', options.decode())]
            case.append(('file', providers_file(db, list_id, change, last_id,
                                                providers, version)))
            yield case


# ---- WAL ----

def wal_page(key, pageaddr, header, to, zeros, marker):
    """What stands on disk, and what a reader gets, after the header."""
    blocks = b''.join(((pageaddr + header) // 16 + i).to_bytes(16, 'big')
                      for i in range(to // 16 + 1))
    stream = aes(key, modes.ECB(), blocks)[(pageaddr + header) % 16:]
    plain = bytearray(pattern(to, 3)[header:])
    disk = bytearray(a ^ b for a, b in zip(plain, stream))
    in_clear = [(offset, bytes(length)) for offset, length in zeros]
    if marker is not None:
        in_clear.append((marker, struct.pack(
            '<II', 0xFFFFFFFF,
            0x43774E78 ^ (pageaddr + marker) & 0xFFFFFFFF)))
    for offset, content in in_clear:
        for what in (plain, disk):
            what[offset - header:offset - header + len(content)] = content
    return bytes(disk), bytes(plain)


def wal_page_cases():
    high = 0xFEDCBA9876540000
    shapes = [
        ('whole page', 0x2000, 24, 8192, [], None),
        ('first page of a segment', 0x1000000, 40, 8192, [], None),
        ('position that fills 64 bits', high, 24, 8192, [], None),
        ('tail not written', high, 24, 8192, [(4096, 4096)], None),
        ('last word not written', high, 24, 8192, [(8184, 8)], None),
        ('holes', high, 24, 8192, [(24, 16), (56, 16), (1000, 24)], None),
        ('nothing written', high, 24, 8192, [(24, 8168)], None),
        ('part of a word read', high, 24, 4099, [(4000, 32)], None),
        ('marker', high, 24, 8192, [(4104, 4088)], 4096),
        ('marker as the last word', high, 24, 8192, [], 8184),
        ('marker in front', high, 24, 8192, [(32, 8160)], 24),
        ('marker after a hole', high, 24, 8192, [(64, 16), (88, 8104)], 80),
    ]
    for i, (name, pageaddr, header, to, zeros, marker) in enumerate(shapes):
        key = pattern(16, 1200 + i)
        disk, plain = wal_page(key, pageaddr, header, to, zeros, marker)
        case = [('test', 'wal_page'), ('name', name), ('key', key),
                ('pageaddr', '%016x' % pageaddr), ('from', header),
                ('to', to), ('seed', 3)]
        case += [('zeros', '%d %d' % z) for z in zeros]
        if marker is not None:
            case.append(('marker', marker))
        yield case + [('head', disk[:40]),
                      ('sha256', hashlib.sha256(disk).digest()),
                      ('read', hashlib.sha256(plain).digest())]


def wal_marker(position):
    return struct.pack('<II', 0xFFFFFFFF,
                       0x43774E78 ^ position & 0xFFFFFFFF)


def wal_written_end(page, pageaddr, first):
    """Where what was written of a page in clear ends."""
    at = first
    while at + 8 <= 8192:
        if page[at:at + 8] == wal_marker(pageaddr + at):
            return at
        length, = struct.unpack_from('<I', page, at)
        if length < 24:
            break
        at += (length + 7) // 8 * 8
    words = [w for w in range(0, 8192, 8) if any(page[w:w + 8])]
    return min(max(at, words[-1] + 8), 8192)


def wal_archive_cases():
    """Pages of an archive in clear, and what they are encrypted to."""
    high = 0xFEDCBA9876540000
    # flags, remaining bytes of a record, records (offset, length), zeros,
    # marker
    shapes = [
        ('whole page', 0x2000, 0, 0, [(24, 8000), (8024, 500)], [], None),
        ('first page of a segment', 0x1000000, 2, 0, [(40, 9000)], [], None),
        ('inside a record', high, 1, 20000, [], [], None),
        ('a record ends', high, 1, 77, [(104, 30), (136, 20000)], [], None),
        ('last record ends in zeros', high, 0, 0, [(24, 1000)],
         [(800, 7392)], None),
        ('record that goes on ends in zeros', high, 0, 0, [(24, 9000)],
         [(800, 7392)], None),
        ('a record that goes on ends in zeros', high, 1, 1001, [],
         [(800, 7392)], None),
        ('a record that fills the page is zeros', high, 1, 8168, [],
         [(24, 8168)], None),
        ('nothing written', high, 0, 0, [], [(24, 8168)], None),
        ('marker', high, 0, 0, [(24, 4072)], [(4104, 4088)], 4096),
        ('marker after zeros', high, 1, 56, [], [(64, 16), (88, 8104)], 80),
        ('marker in front', high, 0, 0, [], [(32, 8160)], 24),
        ('marker as the last word', high, 0, 0, [(24, 8157)], [], 8184),
        ('marker inside a record', high, 0, 0, [(24, 5000)], [(5024, 3168)],
         4096),
        ('damage after the last record', high, 0, 0, [(24, 100)],
         [(128, 872), (1016, 7176)], None),
        ('record of no length', high, 0, 0, [(24, 23)], [(800, 7392)], None),
    ]
    for i, (name, pageaddr, flags, remaining, records, zeros,
            marker) in enumerate(shapes):
        key = pattern(16, 2000 + i)
        ident = 0x7FFFFFFF - i
        header = struct.pack('<HHIQII', 0xD118, flags, 1, pageaddr, remaining,
                             ident | 1 << 31)
        if flags & 2:
            header += struct.pack('<QII', 0x7654321089ABCDEF, 1 << 24, 8192)
        page = bytearray(pattern(8192, 3))
        words = [(offset, struct.pack('<I', length))
                 for offset, length in records]
        if marker is not None:
            words.append((marker, wal_marker(pageaddr + marker)))
        page[:len(header)] = header
        for offset, length in zeros:
            page[offset:offset + length] = bytes(length)
        for offset, word in words:
            page[offset:offset + len(word)] = word
        first = len(header)
        if flags & 1:
            first += (remaining + 7) // 8 * 8
        end = wal_written_end(page, pageaddr, first)
        blocks = b''.join((pageaddr // 16 + n).to_bytes(16, 'big')
                          for n in range(8192 // 16))
        stream = aes(key, modes.ECB(), blocks)
        disk = bytearray(page)
        disk[20:24] = struct.pack('<I', ident)
        for at in range(len(header), end):
            disk[at] ^= stream[at]
        case = [('test', 'wal_archive'), ('name', name), ('key', key),
                ('header', header), ('seed', 3)]
        case += [('zeros', '%d %d' % z) for z in zeros]
        for offset, word in words:
            case += [('at', offset), ('word', word)]
        yield case + [('end', end),
                      ('archived', hashlib.sha256(page).digest()),
                      ('restored', hashlib.sha256(disk).digest())]


def wal_epoch(scope_key, iv, ident, tli, prev_tli, start, prev_end, system,
              created, generation, scope, key):
    version = 2 if scope and not ident else 1
    head = (struct.pack('<4sHH', b'CFWE', version, 0),
            struct.pack('<IIIQQQQ', ident, tli, prev_tli, start, prev_end,
                        system, created) + generation)
    sealed = iv + AESGCM(scope_key).encrypt(iv, key, head[0] + head[1]) \
        if scope else bytes(44)
    return with_crc(head[0] + struct.pack('<I', 124 + len(scope)) + head[1] +
                    sealed + struct.pack('<I', len(scope)) + scope)


def wal_epoch_cases():
    none = (bytes(16), b'', b'', 0)
    shapes = [(1, 1, 1, 0x2000000, 0x1FFC0F8, b'vault', b'wal-key', none, 1),
              (0xFFFFFFFF, 0xFFFFFFFF, 7, (1 << 64) - 8192, 1, b'p' * 126,
               b'n' * 255, none, 1),
              (0, 2, 1, 0x6000, 0x3F48, None, None, none, 1),
              (2, 3, 2, 0x3000000, 0x2FFC0F8, b'p' * 126, b'n' * 255,
               (pattern(16, 653), b't' * 31, b'o' * 1023, 7), 2),
              (0, 3, 3, 0x5000000, 0x4FFE000, b'vault', b'wal-key', none, 1)]
    whole = b''
    for i, (ident, tli, prev_tli, start, prev_end, provider, name, embedded,
            version) in enumerate(shapes):
        scope_key = pattern(32, 1300 + i)
        key = pattern(16, 1400 + i)
        tagged = provider is not None
        generation = pattern(16, 1500 + i) if tagged else bytes(16)
        created = 1767225600000000 + i
        system = 0x7654321089ABCDEF - i
        scope = scope_file(pattern(16, 1600 + i), 2, 0, 0,
                           pattern(16, 1700 + i), 3, created, -1, provider,
                           name, [(generation, 2, created, scope_key,
                                   pattern(12, 1800 + i))], embedded,
                           version) if tagged else b''
        record = wal_epoch(scope_key, pattern(12, 1900 + i), ident, tli,
                           prev_tli, start, prev_end, system, created,
                           generation, scope, key)
        whole += record
        yield [('test', 'wal_epoch'), ('scope_key', scope_key), ('id', ident),
               ('tli', tli), ('prev_tli', prev_tli), ('start', start),
               ('prev_end', prev_end), ('system', system),
               ('created', created), ('generation', generation),
               ('key', key if tagged else bytes(16)), ('record', record)]
    for n, content in ((0, b''), (len(shapes), whole)):
        yield [('test', 'wal_epochs'), ('n', n),
               ('file', with_crc(struct.pack('<4sHHII', b'CFWS', 1, 0,
                                             20 + len(content), n) +
                                 content))]


def main():
    note = 'Made by generate.py; a change here is a change of a format.'
    files = {
        'page.txt': cases_to_text(
            ['Encrypted pages: doc/page-format.md.', note,
             '"head" is bytes 24 to 63, "sha256" that of bytes 24 to the end.'],
            page_cases()),
        'key_record.txt': cases_to_text(
            ['Key records: doc/key-format.md.', note], key_record_cases()),
        'scope.txt': cases_to_text(
            ['Scope files: doc/key-format.md.', note], scope_cases()),
        'providers.txt': cases_to_text(
            ['Provider files: doc/key-format.md.', note], providers_cases()),
        'wal.txt': cases_to_text(
            ['WAL pages and epochs: doc/wal-format.md.', note,
             '"head" and "sha256" are of what stands on disk after the header,',
             '"read" is the SHA-256 of what a reader makes of it;',
             '"archived" and "restored" are those of a page in an archive in clear',
             'and encrypted again, with their headers.'],
            list(wal_page_cases()) + list(wal_archive_cases()) +
            list(wal_epoch_cases())),
    }
    here = os.path.dirname(os.path.abspath(__file__))
    status = 0
    for name, text in files.items():
        path = os.path.join(here, name)
        if '--check' in sys.argv[1:]:
            with open(path, encoding='utf-8') as f:
                if f.read() != text:
                    print(name + ' differs')
                    status = 1
        else:
            with open(path, 'w', encoding='utf-8') as f:
                f.write(text)
    return status


sys.exit(main())
