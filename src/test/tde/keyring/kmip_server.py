#!/usr/bin/env python3
#
# kmip_server.py
#	  A server that answers as a KMIP server should, or should never.
#
# The name of a key says how the server behaves when it is fetched: any name
# that MISBEHAVIOUR does not list is a key like others.  Its unique identifier
# is "id-" and the name, so that a request after a reconnection says so too.
# It speaks KMIP 1.4.  What real servers do is tested in src/test/tde/t.
#
#	  kmip_server.py DIRECTORY LISTENER...
#
# A listener is NAME=KIND or NAME=KIND:CERT:KEY:CA, the CA being that of
# clients.  The kinds are in the class Listener.  When all are ready, the file
# DIRECTORY/ports has a line "NAME PORT" for each.  Requests are written to
# DIRECTORY/requests, one a line: listener, operation, name or identifier.
# It ends with its standard input.
#
# Copyright (c) 2026, the Coffer authors
#
# src/test/tde/keyring/kmip_server.py

import os
import socket
import ssl
import struct
import sys
import threading
import time
import warnings

directory = sys.argv[1]
lock = threading.Lock()
keys = {}                       # name: bytes
done = set()                    # what happens once only
KEY = bytes(range(0x40, 0x60))

STRUCT, INT, ENUM, TEXT, BYTES = 1, 2, 5, 7, 8
OPERATIONS = {0x03: 'Register', 0x08: 'Locate', 0x0A: 'Get',
              0x0B: 'GetAttributes', 0x12: 'Activate', 0x13: 'Revoke',
              0x14: 'Destroy', 0x18: 'Query', 0x1E: 'DiscoverVersions'}


def item(tag, kind, value, length=None):
    """An item; length is what it claims to have."""
    if kind in (INT, ENUM):
        value = struct.pack('>I', value)
    elif kind == TEXT and isinstance(value, str):
        value = value.encode()
    elif kind == STRUCT and isinstance(value, list):
        value = b''.join(value)
    head = bytes([0x42, tag >> 8, tag & 255, kind])
    pad = b'\0' * (-len(value) % 8)
    return head + struct.pack('>I', len(value) if length is None
                              else length) + value + pad


def find(data, tag):
    """The value of the first item with that tag, at any depth."""
    at = 0
    while at + 8 <= len(data):
        this, kind = data[at + 1] << 8 | data[at + 2], data[at + 3]
        length, = struct.unpack('>I', data[at + 4:at + 8])
        value = data[at + 8:at + 8 + length]
        if this == tag:
            return value
        if kind == STRUCT:
            found = find(value, tag)
            if found is not None:
                return found
        at += 8 + length + -length % 8
    return None


def message(operation, batch_id, payload, status=0, reason=None, count=1,
            root=0x7B, text='because'):
    batch = [item(0x5C, ENUM, operation)]
    if batch_id is not None:
        batch.append(item(0x93, BYTES, batch_id))
    batch.append(item(0x7F, ENUM, status))
    if reason is not None:
        batch.append(item(0x7E, ENUM, reason))
        batch.append(item(0x7D, TEXT, text))
    if payload is not None:
        batch.append(item(0x7C, STRUCT, payload))
    return item(root, STRUCT, [
        item(0x7A, STRUCT, [
            item(0x69, STRUCT, [item(0x6A, INT, 1), item(0x6B, INT, 4)]),
            item(0x92, 9, struct.pack('>q', int(time.time()))),
            item(0x0D, INT, count)]),
        item(0x0F, STRUCT, batch)])


def got_key(name, key, ident=None, kind=2, algorithm=3, length=None,
            material=None):
    return [item(0x57, ENUM, kind), item(0x94, TEXT, ident or 'id-' + name),
            item(0x8F, STRUCT, [item(0x40, STRUCT, [
                item(0x42, ENUM, 1),
                item(0x45, STRUCT, [material or item(0x43, BYTES, key)]),
                item(0x28, ENUM, algorithm),
                item(0x2A, INT, 8 * len(key) if length is None else length)])])]


# ---- ways to answer Get: what is sent, and then ----

CLOSE, SILENCE = 'close', 'silence'


def declared(length):
    def change(name, good):
        return [good[:4] + struct.pack('>I', length) + good[8:]], SILENCE
    return change


MISBEHAVIOUR = {
    'slow': lambda n, g: slowly(g),
    'bytewise': lambda n, g: ([g[i:i + 1] for i in range(len(g))], None),
    'nothing': lambda n, g: ([], CLOSE),
    'eof_header': lambda n, g: ([g[:5]], CLOSE),
    'eof_after_header': lambda n, g: ([g[:8]], CLOSE),
    'eof_body': lambda n, g: ([g[:60]], CLOSE),
    'eof_padding': lambda n, g: ([g[:-2]], CLOSE),
    'length_0': declared(0),
    'length_1': declared(1),
    'length_cap': declared(32 * 1024 + 8),
    'length_7fffffff': declared(0x7FFFFFFF),
    'length_80000000': declared(0x80000000),
    'length_ffffffff': declared(0xFFFFFFFF),
    'length_less': lambda n, g: (
        [g[:4] + struct.pack('>I', len(g) - 16) + g[8:]], SILENCE),
    'length_more': lambda n, g: (
        [g[:4] + struct.pack('>I', len(g)) + g[8:] + bytes(8)], SILENCE),
    'trailing': lambda n, g: ([g + b'\xff' * 24], None),
    'silence': lambda n, g: ([], SILENCE),
    'half_silence': lambda n, g: ([g[:40]], SILENCE),
    'garbage': lambda n, g: ([os.urandom(256)], SILENCE),
    'http': lambda n, g: ([b'HTTP/1.1 400 Bad Request\r\n\r\n'], CLOSE),
    'wrong_root': lambda n, g: ([b'\x42\x00\x78' + g[3:]], None),
    'nested': lambda n, g: ([item(0x7B, STRUCT, nest(40))], None),
    'crowd': lambda n, g: (
        [item(0x7B, STRUCT, b'\x42\x00\x0f\x01\0\0\0\0' * 4000)], None),
}


def slowly(answer):
    time.sleep(0.5)
    return [answer], None


def nest(depth):
    value = b''
    for _ in range(depth):
        value = item(0x0F, STRUCT, value)
    return value


# The same, of well-formed answers: arguments of message() and got_key().
SAYS = {
    'count_0': {'count': 0}, 'count_2': {'count': 2},
    'pending': {'status': 2}, 'undone': {'status': 3},
    'no_payload': {'payload': None},
    'denied': {'status': 1, 'reason': 0x0C, 'payload': None},
    'gone': {'status': 1, 'reason': 0x36, 'payload': None},
    'rude': {'status': 1, 'reason': 0x100, 'payload': None,
             'text': '\x1b[31mred\r\nFATAL: ' + 'x' * 3000},
    'other_operation': {'operation': 0x08},
    'other_batch_id': {'batch_id': b'another!'},
}
GIVES = {
    'other_id': {'ident': 'id-another'}, 'other_type': {'kind': 3},
    'not_aes': {'algorithm': 2}, 'disagrees': {'length': 192},
    'no_material': {'material': item(0x43, BYTES, b'')},
    'text_material': {'material': item(0x43, TEXT, KEY.hex())},
    'lying_material': {'material': item(0x43, BYTES, KEY, 400)},
}
LENGTHS = {'len%d' % n: n for n in (0, 1, 15, 17, 31, 33, 64, 4096)}


class Connection:
    def __init__(self, listener, sock):
        self.listener, self.sock = listener, sock

    def log(self, operation, what):
        with lock, open(directory + '/requests', 'a') as f:
            f.write('%s %s %s\n' % (self.listener.name,
                                    OPERATIONS.get(operation, operation),
                                    what))

    def read(self, n):
        data = b''
        while len(data) < n:
            more = self.sock.recv(n - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def serve(self):
        while True:
            head = self.read(8)
            body = self.read(struct.unpack('>I', head[4:])[0])
            if self.listener.kind == 'silent':
                time.sleep(1000)
            if not self.answer(body):
                return

    def answer(self, body):
        operation, = struct.unpack('>I', find(body, 0x5C))
        batch_id = find(body, 0x93)
        name = find(body, 0x55)
        ident = find(body, 0x94)
        what = (ident or name or b'-').decode()
        if ident:
            name = ident[3:]
        name = (name or b'').decode()
        self.log(operation, what)
        say = {'operation': operation, 'batch_id': batch_id, 'payload': []}

        if operation == 0x1E:
            say['payload'] = [item(0x69, STRUCT, [item(0x6A, INT, 1),
                                                  item(0x6B, INT, 4)])]
        elif operation == 0x18:
            say['payload'] = [item(0x5C, ENUM, op) for op in OPERATIONS]
        elif operation == 0x08:
            with lock:
                known = name in keys or name in MISBEHAVIOUR or \
                    name in SAYS or name in GIVES or name in LENGTHS
            say['payload'] = [item(0x94, TEXT, 'id-' + name)] if known else []
        elif operation == 0x03:
            if name == 'lost_before' and name not in done:
                done.add(name)
                return False
            with lock:
                keys[name] = find(body, 0x43)
            if name == 'lost_after' and name not in done:
                done.add(name)
                return False
            say['payload'] = [item(0x94, TEXT, 'id-' + name)]
        elif operation == 0x0B:
            say['payload'] = [item(0x94, TEXT, ident), item(0x08, STRUCT, [
                item(0x0A, TEXT, 'State'), item(0x0B, ENUM, 2)])]
        elif operation == 0x0A:
            return self.answer_get(name, say)
        else:
            say['payload'] = [item(0x94, TEXT, ident)]
        self.sock.sendall(message(**say))
        return True

    def answer_get(self, name, say):
        key = keys.get(name, KEY)
        if name in LENGTHS:
            key = (KEY * 128)[:LENGTHS[name]]
        say['payload'] = got_key(name, key, **GIVES.get(name, {}))
        say.update(SAYS.get(name, {}))
        chunks, then = [message(**say)], None
        if name in MISBEHAVIOUR:
            chunks, then = MISBEHAVIOUR[name](name, chunks[0])
        for chunk in chunks:
            self.sock.sendall(chunk)
        if then == SILENCE:
            time.sleep(1000)
        return then != CLOSE


class Listener:
    """
    good      TLS 1.2 and 1.3 with a client certificate (alias: tls)
    tls12     the same, up to 1.2
    old       TLS 1.1 only
    silent    never answers after the handshake
    stall     accepts connections and says nothing, not even in TLS
    plain     a server that knows no TLS
    closes    closes after the handshake
    hangs_up  closes when it has said its part of a TLS 1.3 handshake, so that
              the client sends to nobody
    resets    resets the connection at once
    drips     a byte of a handshake each half second
    down      nobody listens
    blackhole does not even accept: connecting gets no answer
    """

    def __init__(self, spec):
        self.name, rest = spec.split('=', 1)
        self.kind, *files = rest.split(':')
        self.context = None
        if files:
            c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            c.load_cert_chain(files[0], files[1])
            c.load_verify_locations(files[2])
            c.verify_mode = ssl.CERT_REQUIRED
            if self.kind == 'tls12':
                c.maximum_version = ssl.TLSVersion.TLSv1_2
            if self.kind == 'old':
                warnings.simplefilter('ignore')
                c.set_ciphers('ALL:@SECLEVEL=0')
                c.minimum_version = ssl.TLSVersion.TLSv1_1
                c.maximum_version = ssl.TLSVersion.TLSv1_1
            self.context = c
        self.socket = socket.socket()
        self.socket.bind(('127.0.0.1', 0))
        if self.kind == 'blackhole':
            self.socket.listen(0)
            self.fill = []
            for _ in range(4):
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(self.socket.getsockname())
                self.fill.append(s)
        elif self.kind != 'down':
            self.socket.listen(64)
            threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            sock, _ = self.socket.accept()
            threading.Thread(target=self.serve, args=(sock,),
                             daemon=True).start()

    def serve(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self.kind == 'stall':
                time.sleep(1000)
            elif self.kind == 'plain':
                sock.recv(1000)
                sock.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n')
            elif self.kind == 'resets':
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                struct.pack('ii', 1, 0))
            elif self.kind == 'hangs_up':
                read, write = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = self.context.wrap_bio(read, write, server_side=True)
                read.write(sock.recv(65536))
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    sock.sendall(write.read())
            elif self.kind == 'drips':
                for byte in b'\x16\x03\x03\x40\x00' + bytes(500):
                    sock.sendall(bytes([byte]))
                    time.sleep(0.5)
            else:
                sock = self.context.wrap_socket(sock, server_side=True)
                if self.kind != 'closes':
                    Connection(self, sock).serve()
        except (OSError, EOFError):
            pass
        finally:
            sock.close()


listeners = [Listener(spec) for spec in sys.argv[2:]]
with open(directory + '/ports.new', 'w') as f:
    for one in listeners:
        f.write('%s %d\n' % (one.name, one.socket.getsockname()[1]))
os.rename(directory + '/ports.new', directory + '/ports')
sys.stdin.read()
