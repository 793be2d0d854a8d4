"""python3-etcd3's locks, which clients keep by themselves: what it says is compared with etcd's own."""
import sys
import threading
import time

import etcd3

c = etcd3.client(host="127.0.0.1", port=int(sys.argv[1]))
other = etcd3.client(host="127.0.0.1", port=int(sys.argv[1]))


def say(what, value):
    print(what + ":", value)


def failed(what, call):
    try:
        say(what, call())
    except Exception as e:
        say(what, type(e).__name__)


one = c.lock("toot", ttl=20)
two = other.lock("toot", ttl=20)
say("before", (one.is_acquired(), two.is_acquired()))
say("acquired", one.acquire())
say("is it", (one.is_acquired(), two.is_acquired()))
value, meta = c.get("/locks/toot")
say("its key", (value == one.uuid, meta.lease_id == one.lease.id, meta.version))
say("refreshed", [r.TTL for r in one.refresh()])
failed("the other in vain", lambda: two.acquire(timeout=0))
say("released by the other", two.release())
say("released", one.release())
say("released again", one.release())
say("the other", two.acquire())
say("is it", (one.is_acquired(), two.is_acquired()))
two.release()

# Two that count under the lock.
c.put("count", "0")


def count(client):
    for _ in range(10):
        lock = client.lock("counter", ttl=20)
        while not lock.acquire(timeout=0):
            pass
        n = int(client.get("count")[0])
        client.put("count", str(n + 1))
        assert lock.release()


threads = [threading.Thread(target=count, args=(x,)) for x in (c, other)]
for t in threads:
    t.start()
for t in threads:
    t.join()
say("counted", c.get("count")[0])

# A holder that does not come back.
lost = c.lock("lost", ttl=2)
lost.acquire()
begun = time.monotonic()
heir = other.lock("lost", ttl=20)
while c.get("/locks/lost")[0] is not None:
    assert time.monotonic() - begun < 10, "it never ends"
say("it lasted", 1.8 < time.monotonic() - begun < 6)
say("the heir", heir.acquire())
say("is it", (lost.is_acquired(), heir.is_acquired()))
say("released by who had it", lost.release())
with c.lock("scope") as scoped:
    say("within", scoped.is_acquired())
say("without", scoped.is_acquired())
