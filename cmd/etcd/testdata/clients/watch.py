"""python3-etcd3's watches: what it says is compared with etcd's own."""
import sys

import etcd3

c = etcd3.client(host="127.0.0.1", port=int(sys.argv[1]))


def say(what, value):
    print(what + ":", value)


def told(e):
    prev = e.prev_value if e._event.HasField("prev_kv") else None
    return (type(e).__name__, e.key, e.value, e.mod_revision, e.version, prev)


def take(events, n):
    return [told(next(events)) for _ in range(n)]


events, cancel = c.watch_prefix("service/", prev_kv=True)
one, cancel_one = c.watch("service/b")
c.put("service/a", "1")
c.put("other", "x")
c.put("service/b", "1")
c.put("service/a", "2")
c.delete("service/a")
c.transaction(
    compare=[],
    success=[c.transactions.put("service/a", "3"), c.transactions.delete("service/b"), c.transactions.put("service/c", "")],
    failure=[],
)
say("prefix", take(events, 7))
say("one key", take(one, 2))
cancel_one()
say("after the end", list(one))

past, cancel_past = c.watch_prefix("service/", start_revision=3, prev_kv=True)
say("from revision 3", take(past, 6))
c.compact(6)
try:
    gone, _ = c.watch_prefix("service/", start_revision=4)
    say("compacted", take(gone, 1))
except etcd3.exceptions.RevisionCompactedError as e:
    say("compacted", ("RevisionCompactedError", e.compacted_revision))
last, _ = c.watch("later")
c.put("later", "2")
say("last", take(last, 1))
c.close()
