#!/usr/bin/env python3
#
# vault_server.py
#	  A server that answers as a Vault server should, or should never.
#
# The mount path says how it behaves: "good" is a small KV secrets engine, "late"
# the same one taking 3 seconds to say anything about a key, each other one a way to be bad (see MISBEHAVIOUR).  Tests of what a real
# Vault does are in src/test/tde/t; here is what it does not do on request.
#
#	  vault_server.py DIRECTORY LISTENER...
#
# A listener is NAME (no TLS), NAME=CERT:KEY, NAME=CERT:KEY:old (TLS up to 1.1)
# or NAME=stall (says nothing, not even in TLS).  When all are ready, the file
# DIRECTORY/ports has a line "NAME PORT" for each.  Requests are written to
# DIRECTORY/requests, one a line: method, path, token, namespace.
#
# Copyright (c) 2026, the Coffer authors
#
# src/test/tde/keyring/vault_server.py

import base64
import gzip
import json
import os
import socket
import ssl
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = 's.ThisIsTheTokenOfTheTest'
LIMIT = 65536
KEY = bytes(range(32))

secrets = {}
lock = threading.Lock()
directory = sys.argv[1]


def key_text(length):
    return base64.b64encode((KEY * 4)[:length]).decode()


def secret(key=None, metadata=None, **fields):
    """The answer to a read of a secret."""
    data = {'data': fields or {'key': key_text(32) if key is None else key},
            'metadata': metadata or {'created_time': '2026-11-24T20:00:00Z',
                                     'custom_metadata': None,
                                     'deletion_time': '',
                                     'destroyed': False, 'version': 1}}
    return {'request_id': 'r', 'lease_id': '', 'renewable': False,
            'data': data, 'wrap_info': None, 'warnings': None, 'auth': None}


def mount(kind, version):
    return {'data': {'type': kind, 'path': 'x/',
                     'options': {'version': version} if version else None}}


# What is said to a read, or to any request: status and content.
GONE = {'deletion_time': '2026-11-24T21:00:00Z', 'destroyed': False,
        'version': 1}
DESTROYED = {'deletion_time': '', 'destroyed': True, 'version': 1}
ANSWERS = {
    'notjson': (200, b'<html>welcome</html>'),
    'empty': (200, b''),
    'nodata': (200, {'auth': None}),
    'datanull': (200, {'data': None}),
    'datatext': (200, {'data': 'text'}),
    'dataarray': (200, {'data': [{'data': {'key': key_text(32)}}]}),
    'toplevel': (200, [secret()]),
    'nokey': (200, secret(value='x')),
    'keynumber': (200, secret(key=5)),
    'keynull': (200, secret(key=None, other=None)),
    'keyobject': (200, secret(key={'key': key_text(32)})),
    'elsewhere': (200, {'key': key_text(32), 'data': {'key': key_text(32),
                        'data': {'data': {'key': key_text(32)}}}}),
    'slashes': (200, {'data/data/key': key_text(32),
                      'data': {'data/key': key_text(32),
                               '/data': {'key': key_text(32)}}}),
    'twice': (200, b'{"data":{"data":{"key":"%s","key":"%s"}}}' %
              (key_text(32).encode(), key_text(16).encode())),
    'badbase64': (200, secret(key='!!not base64!!')),
    'emptykey': (200, secret(key='')),
    'trailing': (200, json.dumps(secret()).encode() + b'{}'),
    'nul': (200, b'{"data":{"data":{"key":"%s\0"}}}' % key_text(32).encode()),
    'nesting': (200, b'{"data":{"data":' + b'[' * 30000),
    'deep': (200, b'{"x":' + b'[' * 31 + b']' * 31 + b',"data":' +
             json.dumps(secret()['data']).encode() + b'}'),
    'deeper': (200, b'{"x":' + b'[' * 32 + b']' * 32 + b',"data":' +
               json.dumps(secret()['data']).encode() + b'}'),
    'escapes': (200, b'{"x":"\\u2028 \\ud83d\\ude00 \\ud800 \\u0000 \\\\u00e9",'
                b'"data":{"data":{"k\\u0065y":"' +
                ''.join('\\u%04x' % ord(c) for c in key_text(32)).encode() +
                b'"}}}'),
    'latin1': (200, b'{"x":"\xe9\xff","data":' +
               json.dumps(secret()['data']).encode() + b'}'),
    'sealed': (503, {'errors': ['Vault is sealed']}),
    'denied': (403, {'errors': ['1 error occurred:\n\t* permission denied\n\n']}),
    'missing': (404, {'errors': []}),
    'noroute': (404, {'errors': ['no handler for route "noroute/data/k"']}),
    'nopage': (404, b'<html>not found</html>'),
    'deleted': (404, secret(metadata=GONE, none=None)),
    'destroyed': (404, secret(metadata=DESTROYED, none=None)),
    'rude': (500, {'errors': ['\x1b[31mred\x07\r\nFATAL: caf\u00e9 ' + 'x' * 400]}),
    'echo': (403, {'errors': ['bad token ' + TOKEN]}),
    'echopart': (403, {'errors': ['bad token' + 'x' * 225 + TOKEN]}),
    'errorsnumber': (403, {'errors': [5, {'a': 'b'}, 'third']}),
    'version2': (200, {'data': {'version': 2}}),
    'versiontext': (200, {'data': {'version': '1'}}),
    'versionhuge': (200, b'{"data":{"version":4294967297}}'),
    'kv1': (204, b''),
}
for n in (1, 15, 16, 17, 24, 31, 32, 33, 64, 65):
    ANSWERS['len%d' % n] = (200, secret(key=key_text(n)))
for n in (100, 204, 206, 301, 302, 303, 307, 308, 400, 401, 405, 412, 418,
          429, 472, 473, 500, 501, 502, 504, 999):
    ANSWERS['status%d' % n] = (n, {'errors': ['status %d' % n]})

MOUNTS = {
    'm_kv1': (200, mount('kv', '1')),
    'm_old': (200, mount('kv', None)),
    'm_generic': (200, mount('generic', '2')),
    'm_pki': (200, mount('pki', None)),
    'm_number': (200, mount('kv', 2)),
    'm_denied': (403, {'errors': ['preflight capability check returned 403, '
                                  'please ensure client\'s policies grant '
                                  'access to path "m_denied/"']}),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    timeout = 60

    def log_message(self, *args):
        pass

    def say(self, status, content, headers=()):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        if status != 204:
            self.wfile.write(content)

    def raw(self, content):
        self.close_connection = True
        self.wfile.write(content)

    def handle_request(self):
        length = int(self.headers.get('Content-Length', 0))
        body = self.rfile.read(length)
        token = self.headers.get('X-Vault-Token', '-')
        space = self.headers.get('X-Vault-Namespace', '-')
        with lock, open(directory + '/requests', 'a') as log:
            log.write('%s %s %s %s\n' % (self.command, self.path, token, space))
        parts = [urllib.parse.unquote(p) for p in self.path.split('/')]
        if parts[:5] == ['', 'v1', 'sys', 'internal', 'ui']:
            how = parts[6]
            if how not in MISBEHAVIOUR and how not in ANSWERS:
                self.say(*MOUNTS.get(how, (200, mount('kv', '2'))))
                return
        else:
            how = parts[2]
        try:
            if how in MISBEHAVIOUR:
                MISBEHAVIOUR[how](self, body)
            elif how in ANSWERS:
                self.say(*ANSWERS[how])
            else:
                if how == 'late':
                    time.sleep(3)
                self.good('/'.join(parts[4:]), token, space, body)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    do_GET = do_POST = handle_request

    def good(self, name, token, space, body):
        if token != TOKEN:
            self.say(403, {'errors': ['permission denied']})
            return
        with lock:
            old = secrets.get((space, name))
            if self.command == 'GET':
                if old is None:
                    self.say(404, {'errors': []})
                else:
                    self.say(200, secret(key=old))
                return
            wanted = json.loads(body)
            if wanted['options']['cas'] != 0 or old is not None:
                self.say(400, {'errors': ['check-and-set parameter did not '
                                          'match the current version']})
                return
            secrets[(space, name)] = wanted['data']['key']
        self.say(200, {'data': {'version': 1, 'destroyed': False}})


def redirect(self, body):
    self.say(307, b'', [('Location', '/v1/good/data/target')])


def big(self, body):
    self.send_response(200)
    self.send_header('Content-Length', str(1 << 30))
    self.end_headers()
    while True:
        self.wfile.write(b' ' * 65536)


def chunks(self, body):
    self.send_response(200)
    self.send_header('Transfer-Encoding', 'chunked')
    self.end_headers()
    while True:
        self.wfile.write(b'400\r\n' + b' ' * 1024 + b'\r\n')


def headers(self, body):
    self.wfile.write(b'HTTP/1.1 200 OK\r\n')
    while True:
        self.wfile.write(b'X-More: ' + b'x' * 1000 + b'\r\n')


def longheader(self, body):
    self.wfile.write(b'HTTP/1.1 200 OK\r\nX-More: ')
    while True:
        self.wfile.write(b'x' * 65536)


def go_on(self, body):
    while True:
        self.wfile.write(b'HTTP/1.1 100 Continue\r\n\r\n')


def of_size(size):
    def say(self, body):
        content = json.dumps(secret()).encode()
        self.say(200, content + b' ' * (size - len(content)))
    return say


def silence(self, body):
    time.sleep(30)


def drip(self, body):
    self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n')
    while True:
        self.wfile.write(b' ')
        time.sleep(0.05)


def dripping_headers(self, body):
    for c in b'HTTP/1.1 200 OK\r\n' + b'X: y\r\n' * 1000:
        self.wfile.write(bytes([c]))
        time.sleep(0.05)


def slowly(self, body):
    content = json.dumps(secret()).encode()
    for c in b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % len(content) + content:
        self.wfile.write(bytes([c]))


def truncated(self, body):
    content = json.dumps(secret()).encode()
    self.raw(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' %
             (len(content) + 1) + content)


def truncated_chunk(self, body):
    content = json.dumps(secret()).encode()
    self.raw(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n' %
             len(content) + content)


def until_closed(self, body):
    self.raw(b'HTTP/1.1 200 OK\r\n\r\n' + json.dumps(secret()).encode())


def reset(self, body):
    self.close_connection = True
    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                               b'\1\0\0\0\0\0\0\0')
    self.connection.close()


def hang_up(self, body):
    self.close_connection = True


def compressed(self, body):
    self.say(200, gzip.compress(json.dumps(secret()).encode()),
             [('Content-Encoding', 'gzip')])


def lost(self, body):
    """A key is made, but its maker does not hear of it."""
    if self.command == 'POST':
        with lock:
            secrets[('-', 'lost')] = json.loads(body)['data']['key']
        self.close_connection = True
    else:
        self.good('lost', TOKEN, '-', body)


def echo_key(self, body):
    key = json.loads(body)['data']['key'] if body else ''
    self.say(400, {'errors': ['cannot store ' + key]})


MISBEHAVIOUR = {
    'redirect': redirect,
    'big': big,
    'chunks': chunks,
    'headers': headers,
    'longheader': longheader,
    'continue': go_on,
    'limit': of_size(LIMIT),
    'overlimit': of_size(LIMIT + 1),
    'silence': silence,
    'drip': drip,
    'dripheaders': dripping_headers,
    'slowly': slowly,
    'truncated': truncated,
    'truncatedchunk': truncated_chunk,
    'untilclosed': until_closed,
    'reset': reset,
    'hangup': hang_up,
    'garbage': lambda self, body: self.raw(bytes(range(256)) * 8),
    'http09': lambda self, body: self.raw(json.dumps(secret()).encode()),
    'badstatus': lambda self, body: self.raw(b'HTTP/1.1 abc\r\n\r\n'),
    'badlength': lambda self, body: self.raw(
        b'HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n'),
    'hugelength': lambda self, body: self.raw(
        b'HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n'),
    'badchunk': lambda self, body: self.raw(
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n'),
    'compressed': compressed,
    'lost': lost,
    'echokey': echo_key,
}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context):
        super().__init__(('127.0.0.1', 0), Handler)
        self.context = context

    def finish_request(self, request, address):
        """In the thread of the connection, so that none waits for another."""
        if self.context:
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except (OSError, ssl.SSLError):
                return
        super().finish_request(request, address)

    def handle_error(self, request, address):
        pass


def listen(listener):
    name, _, how = listener.partition('=')
    if how == 'stall':
        s = socket.socket()
        s.bind(('127.0.0.1', 0))
        s.listen(50)
        stalled.append(s)
        return name, s.getsockname()[1]
    context = None
    if how:
        cert, key, *old = how.split(':')
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if old:
            context.set_ciphers('ALL:@SECLEVEL=0')
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.load_cert_chain(cert, key)
    server = Server(context)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return name, server.server_address[1]


stalled = []
ports = [listen(arg) for arg in sys.argv[2:]]
with open(directory + '/ports.tmp', 'w') as f:
    for name, port in ports:
        f.write('%s %d\n' % (name, port))
os.rename(directory + '/ports.tmp', directory + '/ports')

# until whoever started us is gone
sys.stdin.read()
