# Clusters that are measured: how they are made, configured, and asked.

import glob
import os
import re
import subprocess
import sys
import time

TICK = os.sysconf('SC_CLK_TCK')

# name: (build, cipher of tables, is WAL encrypted?); a cipher of None leaves
# encryption unused
VARIANTS = {
    'stock': ('stock', None, False),
    'unused': ('coffer', None, False),
    'aes_128_xts': ('coffer', 'aes_128_xts', False),
    'aes_256_xts': ('coffer', 'aes_256_xts', False),
    'aes_128_cbc': ('coffer', 'aes_128_cbc', False),
    'wal_off': ('coffer', 'aes_128_xts', False),
    'wal_on': ('coffer', 'aes_128_xts', True),
}

CONF = """
unix_socket_directories = '{sockets}'
listen_addresses = ''
port = {port}
shared_buffers = 64MB
max_wal_size = 16GB
checkpoint_timeout = 1h
autovacuum = off
bgwriter_lru_maxpages = 0
max_parallel_workers_per_gather = 0
max_parallel_maintenance_workers = 0
maintenance_work_mem = 256MB
jit = off
fsync = off
io_method = {io_method}
"""

# Where tables are measured, WAL is to cost little, and its images of pages,
# which come after some checkpoints and not others, nothing.
TABLES_CONF = "full_page_writes = off\n"
WAL_CONF = "synchronous_commit = off\n"


def die(message):
    sys.exit('bench: ' + message)


def say(message):
    print('== ' + message, flush=True)


class Server:
    """A cluster of one variant."""

    def __init__(self, args, name, number, bindir):
        self.name = name
        self.build, self.cipher, self.wal = VARIANTS[name]
        self.bindir = bindir
        self.dir = os.path.join(args.data, 'data-' + name)
        self.port = args.port + number
        self.args = args

    def env(self):
        env = dict(os.environ, PGHOST=self.args.sockets, PGPORT=str(self.port),
                   PGDATABASE='postgres', LC_ALL='C.UTF-8')
        libdir = os.path.join(os.path.dirname(self.bindir), 'lib')
        env['LD_LIBRARY_PATH'] = ':'.join(
            [libdir] + ([env['LD_LIBRARY_PATH']] if 'LD_LIBRARY_PATH' in env
                        else []))
        return env

    def run(self, program, *arguments, **kw):
        command = [os.path.join(self.bindir, program)] + list(arguments)
        done = subprocess.run(command, env=self.env(), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL, **kw)
        if done.returncode != 0:
            die('%s on %s failed:\n%s%s' % (' '.join(command), self.name,
                                            done.stdout, done.stderr))
        return done.stdout

    def sql(self, statements):
        return self.run('psql', '-XqAt', '-v', 'ON_ERROR_STOP=1',
                        '-c', statements).strip()

    def configure(self, io_method):
        conf = CONF.format(sockets=self.args.sockets, port=self.port,
                           io_method=io_method)
        conf += WAL_CONF if self.args.wal else TABLES_CONF
        if self.args.keys:
            conf += "fsync = on\n"
        if self.build == 'coffer':
            conf += "shared_preload_libraries = 'pg_tde'\n"
        if self.cipher:
            conf += "pg_tde.cipher = '%s'\n" % self.cipher
            conf += "default_table_access_method = 'tde_heap'\n"
        if self.wal:
            conf += "pg_tde.wal_encrypt = on\n"
        with open(os.path.join(self.dir, 'postgresql.auto.conf'), 'w') as f:
            f.write(conf)

    def start(self):
        self.run('pg_ctl', '-D', self.dir, '-w', '-l', self.dir + '.log',
                 'start')

    def stop(self, mode='fast'):
        if os.path.exists(os.path.join(self.dir, 'postmaster.pid')):
            self.run('pg_ctl', '-D', self.dir, '-w', '-m', mode, 'stop')

    def make(self, rows, scale):
        self.run('initdb', '-D', self.dir, '-A', 'trust', '-N', '--no-locale')
        self.configure('worker')
        if self.cipher:     # until there is the access method
            with open(os.path.join(self.dir, 'postgresql.auto.conf'),
                      'a') as f:
                f.write("default_table_access_method = 'heap'\n"
                        "pg_tde.wal_encrypt = off\n")
        self.start()
        if self.cipher:
            ring = self.dir + '.keyring'
            self.sql("CREATE EXTENSION pg_tde")
            self.sql("SELECT pg_tde_add_global_key_provider_file('ring', "
                     "'%s')" % ring)
            self.sql("SELECT pg_tde_create_key_using_global_key_provider("
                     "'key', 'ring')")
            self.sql("SELECT pg_tde_set_default_key_using_global_key_provider("
                     "'key', 'ring')")
            self.stop()
            self.configure('worker')
            self.start()
        if rows > 0:
            self.sql("CREATE TABLE t AS SELECT g AS id, g %% 1000 AS k, "
                     "repeat(md5(g::text), 5) AS x "
                     "FROM generate_series(1, %d) g" % rows)
            self.sql('VACUUM (FREEZE) t')
        self.run('pgbench', '-i', '-q', '-s', str(scale))
        self.sql('CHECKPOINT')
        if self.cipher and self.sql(
                "SELECT pg_tde_is_encrypted('pgbench_accounts')") != 't':
            die('tables of %s are not encrypted' % self.name)
        if self.wal and self.sql('SELECT pg_tde_is_wal_encrypted()') != 't':
            die('WAL of %s is not encrypted' % self.name)

    def cpu(self):
        """CPU seconds of all processes of this server so far."""
        with open(os.path.join(self.dir, 'postmaster.pid')) as f:
            postmaster = int(f.readline())
        total = 0
        for path in glob.glob('/proc/[0-9]*/stat'):
            try:
                with open(path) as f:
                    line = f.read()
            except OSError:
                continue
            pid = int(line.split(' ', 1)[0])
            fields = line.rsplit(')', 1)[1].split()
            if pid == postmaster:
                total += sum(int(n) for n in fields[11:15])
            elif int(fields[1]) == postmaster:
                total += sum(int(n) for n in fields[11:13])
        return total / TICK

    def cpu_of_all(self):
        """The same, once no client's process is left to be counted."""
        while self.sql("SELECT count(*) FROM pg_stat_activity WHERE "
                       "application_name IN ('pgbench', 'psql') AND "
                       "pid <> pg_backend_pid()") != '0':
            time.sleep(0.1)
        time.sleep(0.2)     # for the postmaster to collect the last of them
        return self.cpu()

    def timed(self, statement, before='', after=''):
        """Seconds that a statement takes, as the server sees it."""
        out = self.run('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-c', before,
                       '-c', '\\timing on', '-c', statement,
                       '-c', '\\timing off', '-c', after)
        return float(re.findall(r'Time: ([\d.]+) ms', out)[-1]) / 1000

    def pgbench(self, *options):
        """CPU milliseconds and milliseconds per transaction."""
        self.sql('CHECKPOINT')
        before = self.cpu_of_all()
        out = self.run('pgbench', '-n', '-c', '2', '-j', '2', '-M', 'prepared',
                       *options)
        after = self.cpu_of_all()
        done = int(re.search(r'actually processed: (\d+)', out).group(1))
        tps = float(re.search(r'tps = ([\d.]+)', out).group(1))
        return (after - before) * 1000 / done, 1000 / tps
