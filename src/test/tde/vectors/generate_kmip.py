#!/usr/bin/env python3
"""Makes kmip.txt: KMIP requests and their answers, operation by operation.

Written from the KMIP specification (1.4, and 2.1 for attributes), sharing no
code with Coffer's client.  Not run by the tests.

    ./generate_kmip.py           rewrites kmip.txt beside it
    ./generate_kmip.py --check   says whether it is what it would write
"""
import os
import struct
import sys

STRUCTURE, INTEGER, ENUM, TEXT, BYTES, DATE_TIME = 1, 2, 5, 7, 8, 9

NAME = 'schlüssel_01'
ID = '6f3a1c52-8f0e-4c1b-9d57-2f4f0c1e7a90'
KEY = bytes(range(32))
TIME = 1767225600
BATCH_ID = struct.pack('>I', 7)


def item(tag, kind, value):
    padding = b'\0' * (-len(value) % 8)
    return (struct.pack('>I', 0x420000 | tag)[1:] + bytes([kind]) +
            struct.pack('>I', len(value)) + value + padding)


def structure(tag, *items):
    return item(tag, STRUCTURE, b''.join(items))


def integer(tag, value):
    return item(tag, INTEGER, struct.pack('>i', value))


def enum(tag, value):
    return item(tag, ENUM, struct.pack('>I', value))


def text(tag, value):
    return item(tag, TEXT, value.encode('utf-8'))


def byte_string(tag, value):
    return item(tag, BYTES, value)


def date_time(tag, value):
    return item(tag, DATE_TIME, struct.pack('>q', value))


def protocol_version(v):
    return structure(0x69, integer(0x6A, v[0]), integer(0x6B, v[1]))


def attribute(v, name, tag, make):
    """An attribute: in words (1.x) or with its own tag (2.x)."""
    if v >= (2, 0):
        return make(tag)
    return structure(0x08, text(0x0A, name), make(0x0B))


def attributes(v, *what):
    return structure(0x125 if v >= (2, 0) else 0x91, *what)


def name_attribute(v):
    return attribute(v, 'Name', 0x53, lambda tag: structure(
        tag, text(0x55, NAME), enum(0x54, 1)))


def new_key(v):
    return attributes(
        v,
        attribute(v, 'Cryptographic Algorithm', 0x28, lambda t: enum(t, 3)),
        attribute(v, 'Cryptographic Length', 0x2A, lambda t: integer(t, 256)),
        attribute(v, 'Cryptographic Usage Mask', 0x2C,
                  lambda t: integer(t, 0x0C)),
        name_attribute(v))


def symmetric_key(extra=b''):
    return structure(0x8F, structure(
        0x40,
        enum(0x42, 1),
        structure(0x45, byte_string(0x43, KEY), extra),
        enum(0x28, 3),
        integer(0x2A, 256)))


def request(v, operation, *payload):
    return structure(
        0x78,
        structure(0x77, protocol_version(v), integer(0x50, 32768),
                  integer(0x0D, 1)),
        structure(0x0F, enum(0x5C, operation), byte_string(0x93, BATCH_ID),
                  structure(0x79, *payload)))


def response(v, operation, *payload):
    return structure(
        0x7B,
        structure(0x7A, protocol_version(v), date_time(0x92, TIME),
                  integer(0x0D, 1)),
        structure(0x0F, enum(0x5C, operation), byte_string(0x93, BATCH_ID),
                  enum(0x7F, 0), structure(0x7C, *payload)))


def locate(v):
    what = [attribute(v, 'Object Type', 0x57, lambda t: enum(t, 2)),
            name_attribute(v)]
    return integer(0x4F, 4) + (
        structure(0x125, *what) if v >= (2, 0) else b''.join(what))


def state(v, value):
    """What Get Attributes returns; in 2.x all attributes."""
    if v < (2, 0):
        return attribute(v, 'State', 0x8D, lambda t: enum(t, value))
    return structure(0x125, enum(0x57, 2), enum(0x28, 3), integer(0x2A, 256),
                     name_attribute(v), enum(0x8D, value),
                     date_time(0x01, TIME))


def cases(v):
    ours = [(2, 1), (2, 0), (1, 4), (1, 3), (1, 2), (1, 1), (1, 0)]
    uid = text(0x94, ID)
    some = attribute(v, 'Cryptographic Usage Mask', 0x2C,
                     lambda t: integer(t, 0x0C))
    if v > (1, 0) and v <= (1, 4):
        yield ('Discover Versions', 0x1E,
               b''.join(protocol_version(o) for o in ours),
               b''.join(protocol_version(o)
                        for o in [(3, 0), (1, 4), (2, 0), (1, 0)]),
               [('got_best', '2.0')])
    yield ('Query', 0x18, enum(0x74, 1),
           b''.join(enum(0x5C, o) for o in [1, 3, 8, 10, 11, 18, 19, 20, 24]),
           [('got_operations', '18615562')])
    yield ('Create', 1, enum(0x57, 2) + new_key(v), enum(0x57, 2) + uid,
           [('got_id', ID)])
    yield ('Register', 3, enum(0x57, 2) + new_key(v) + symmetric_key(), uid,
           [('got_id', ID)])
    yield ('Locate', 8, locate(v),
           (integer(0xD5, 2) if v >= (1, 3) else b'') + uid + text(0x94, '2'),
           [('got_nlocated', '2'), ('got_located', ID), ('got_located', '2')])
    yield ('Locate', 8, locate(v), b'', [('got_nlocated', '0')])
    yield ('Get', 0x0A, uid + enum(0x42, 1),
           enum(0x57, 2) + uid + symmetric_key(some), [('got_key', KEY.hex())])
    yield ('Get Attributes', 0x0B,
           uid + (text(0x0A, 'State') if v < (2, 0) else b''),
           uid + state(v, 4), [('got_state', '4')])
    yield 'Activate', 0x12, uid, uid, []
    yield ('Revoke', 0x13, uid + structure(0x81, enum(0x82, 6)), uid,
           [('why', '6')])
    yield ('Revoke', 0x13, uid + structure(0x81, enum(0x82, 2)) +
           date_time(0x21, TIME), uid, [('why', '2')])
    yield 'Destroy', 0x14, uid, uid, []


def make():
    out = ['# KMIP messages: the same operations in several versions.',
           '# Made by generate_kmip.py.']
    for v in [(1, 0), (1, 2), (1, 4), (2, 0), (2, 1)]:
        for name, operation, ask, answer, fields in cases(v):
            out += ['', 'operation = %d' % operation,
                    'title = %s' % name,
                    'major = %d' % v[0], 'minor = %d' % v[1],
                    'name = %s' % NAME, 'key = %s' % KEY.hex(),
                    'asked_id = %s' % ID, 'when = %d' % TIME,
                    'request = %s' % request(v, operation, ask).hex(),
                    'response = %s' % response(v, operation, answer).hex()]
            out += ['%s = %s' % f for f in fields]
    return '\n'.join(out) + '\n'


def main():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'kmip.txt')
    if sys.argv[1:] == ['--check']:
        with open(path) as f:
            same = f.read() == make()
        print('kmip.txt: %s' % ('as it should be' if same else 'differs'))
        sys.exit(not same)
    with open(path, 'w') as f:
        f.write(make())


if __name__ == '__main__':
    main()
