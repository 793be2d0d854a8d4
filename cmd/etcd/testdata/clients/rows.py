"""Rows for whichever server of PostgreSQL takes them, one after the other, until it is
ended: what was acknowledged is printed, and what was not."""
import sys
import time

import psycopg2

servers = sys.argv[1]
conn = None
n = 0
while True:
    n += 1
    try:
        if conn is None:
            conn = psycopg2.connect(servers)
            conn.autocommit = True
        with conn.cursor() as cursor:
            cursor.execute("INSERT INTO kept VALUES (%s)", (n,))
        # Committed here and not on the standby is told by a notice.
        print("kept" if not conn.notices else "alone", n, flush=True)
        del conn.notices[:]
    except psycopg2.Error as e:
        print("failed", n, str(e).strip().split("\n")[0], flush=True)
        conn = None
    time.sleep(0.02)
