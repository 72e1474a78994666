#!/usr/bin/python3
"""inserts.py DIR COUNT: so many inserts into SQLite, a transaction each, with both kinds of journal."""
import os
import sqlite3
import sys
import time


def inserts(path, mode, count):
    db = sqlite3.connect(path, isolation_level=None)
    got = db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
    if got != mode:
        sys.exit(f"journal_mode is {got}, not {mode}")
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
    start = time.monotonic()
    for i in range(count):
        db.execute("INSERT INTO t VALUES (?, ?)", (i, "x" * 100))
    seconds = time.monotonic() - start
    db.close()
    for end in ("", "-wal", "-shm", "-journal"):
        if os.path.exists(path + end):
            os.unlink(path + end)
    print(f"sqlite_{mode} {seconds / count * 1e6:.6g} us")


for journal in ("delete", "wal"):
    inserts(os.path.join(sys.argv[1], journal + ".db"), journal, int(sys.argv[2]))
