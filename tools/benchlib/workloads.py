# What is measured.  A workload returns a value for each of its units; smaller
# is faster.

import collections
import os
import re
import shutil
import time

Workload = collections.namedtuple('Workload', 'name io_method units function')


# ---- against stock: tables ----

def seq_scan(server, args):
    return [server.timed('SELECT count(*) FROM t')]


def create_table_as(server, args):
    return [server.timed('CREATE TABLE c AS SELECT * FROM t',
                         before='DROP TABLE IF EXISTS c; CHECKPOINT')]


def first_vacuum(server, args):
    """of the table that create_table_as made"""
    return [server.timed('VACUUM c')]


def vacuum_full(server, args):
    return [server.timed('VACUUM FULL c', before='CHECKPOINT')]


def create_index(server, args):
    return [server.timed('CREATE INDEX i ON c (x, id)', before='CHECKPOINT',
                         after='DROP INDEX i')]


def tpcb(server, args):
    return server.pgbench('-T', str(args.seconds))[:1]


def select_only(server, args):
    return server.pgbench('-T', str(args.seconds), '-S')[:1]


TABLES = [
    Workload('seq scan, sync', 'sync', ('s',), seq_scan),
    Workload('seq scan, io_uring', 'io_uring', ('s',), seq_scan),
    Workload('seq scan, worker', 'worker', ('s',), seq_scan),
    Workload('CREATE TABLE AS', 'worker', ('s',), create_table_as),
    Workload('first VACUUM', 'worker', ('s',), first_vacuum),
    Workload('VACUUM FULL', 'worker', ('s',), vacuum_full),
    Workload('CREATE INDEX', 'worker', ('s',), create_index),
    Workload('pgbench TPC-B', 'worker', ('ms CPU',), tpcb),
    Workload('pgbench -S', 'worker', ('ms CPU',), select_only),
]


# ---- WAL encryption against none: processor time, and time ----

def tpcb_both(server, args):
    return server.pgbench('-T', str(args.seconds))


def page_images(server, args):
    """100 random rows a transaction, right after a checkpoint"""
    script = os.path.join(args.data, 'page_images.sql')
    with open(script, 'w') as f:
        f.write('UPDATE pgbench_accounts SET abalance = abalance + 1 '
                'WHERE aid = ANY (ARRAY(SELECT 1 + (random() * (:scale * '
                '100000 - 1))::int FROM generate_series(1, 100)));\n')
    return server.pgbench('-t', '100', '-s', str(args.scale), '-f', script)


def statement(server, sql, before='', after=''):
    """CPU seconds and seconds of a statement"""
    if before:
        server.sql(before)
    server.sql('CHECKPOINT')
    start = server.cpu_of_all()
    seconds = server.timed(sql)
    cpu = server.cpu_of_all() - start
    if after:
        server.sql(after)
    return cpu, seconds


def messages(size, count):
    def function(server, args):
        return statement(
            server, "SELECT count(pg_logical_emit_message(false, 'x', m)) "
            "FROM (SELECT repeat('a', %d) AS m, generate_series(1, %d)) s"
            % (size, count))
    return function


def statements_of_one_message(server, args):
    """64 bytes in a statement of its own, as applications send them"""
    script = os.path.join(args.data, 'message.sql')
    with open(script, 'w') as f:
        f.write("SELECT pg_logical_emit_message(false, 'x', "
                "repeat('a', 64));\n")
    return server.pgbench('-T', str(args.seconds), '-f', script)


def wal_create_table_as(server, args):
    return statement(
        server, "CREATE TABLE c AS SELECT g, repeat('x', 100) AS x "
        "FROM generate_series(1, 2000000) g", after='DROP TABLE c')


def replay(server, args):
    """of the WAL of a pgbench run before a crash, as the server logs it"""
    crashed = server.dir + '.crashed'
    if not os.path.isdir(crashed):
        server.sql('CHECKPOINT')
        server.run('pgbench', '-n', '-c', '2', '-j', '2', '-M', 'prepared',
                   '-t', '60000')
        server.stop('immediate')
        shutil.copytree(server.dir, crashed)
    else:
        server.stop()
    shutil.rmtree(server.dir)
    shutil.copytree(crashed, server.dir)
    server.start()
    with open(server.dir + '.log') as f:
        times = re.findall(r'redo done .* CPU: user: ([\d.]+) s, system: '
                           r'([\d.]+) s, elapsed: ([\d.]+) s', f.read())[-1]
    return float(times[0]) + float(times[1]), float(times[2])


def change_tables(server, statement, first, last):
    """Once for each number, 500 in a transaction."""
    server.sql("DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE format('%s', i); "
               "IF i %% 500 = 0 THEN COMMIT; END IF; END LOOP; END $$" %
               (first, last, statement))


def keep_tables(server, number):
    """Tables keep_1 to keep_number, and no more"""
    there = int(server.sql("SELECT count(*) FROM pg_class "
                           "WHERE relname LIKE 'keep\\_%'"))
    if there < number:
        change_tables(server, 'CREATE TABLE keep_%s (a int)', there + 1, number)
    elif there > number:
        change_tables(server, 'DROP TABLE keep_%s', number + 1, there)
    server.sql('CHECKPOINT')


def start(number):
    def measure(server, args):
        keep_tables(server, number)
        server.stop()
        began = time.monotonic()
        server.start()
        return server.cpu(), time.monotonic() - began
    return measure


def drop_tables(server, args):
    """the checkpoint after them"""
    change_tables(server, 'CREATE TABLE gone_%s (a int)', 1, 69000)
    server.sql('CHECKPOINT')
    change_tables(server, 'DROP TABLE gone_%s', 1, 69000)
    before = server.cpu_of_all()
    seconds = server.timed('CHECKPOINT')
    return server.cpu_of_all() - before, seconds


BOTH = ('s CPU', 's')
KEYS = [
    Workload('start, 100 relations', 'worker', BOTH, start(100)),
    Workload('start, 100,000 relations', 'worker', BOTH, start(100000)),
    Workload('checkpoint after dropping 69,000 tables', 'worker', BOTH,
             drop_tables),
]
WAL = [
    Workload('pgbench TPC-B, synchronous_commit off', 'worker',
             ('ms CPU', 'ms'), tpcb_both),
    Workload('full-page images', 'worker', ('ms CPU', 'ms'), page_images),
    Workload('messages of 64 bytes, a statement each', 'worker',
             ('ms CPU', 'ms'), statements_of_one_message),
    Workload('messages of 64 bytes, 2 million in one', 'worker', BOTH,
             messages(64, 2000000)),
    Workload('messages of 8 kB, 50,000 in one', 'worker', BOTH,
             messages(8000, 50000)),
    Workload('CREATE TABLE AS, 2 million rows', 'worker', BOTH,
             wal_create_table_as),
    Workload('replay of 120,000 transactions', 'worker', BOTH, replay),
]
