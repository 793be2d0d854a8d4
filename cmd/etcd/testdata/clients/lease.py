"""python3-etcd3's leases: what it says is compared with etcd's own."""
import sys
import time

import etcd3
import grpc

c = etcd3.client(host="127.0.0.1", port=int(sys.argv[1]))


def say(what, value):
    print(what + ":", value)


def refused(what, call):
    try:
        say(what, call())
    except grpc.RpcError as e:
        say(what, (e.code().name, e.details()))
    except Exception as e:
        say(what, (type(e).__name__, str(e)))


lease = c.lease(600, lease_id=1234)
say("granted", (lease.id, lease.ttl, lease.granted_ttl, 590 <= lease.remaining_ttl <= 600))
say("drawn", c.lease(600).id > 0)
c.put("b", "1", lease=lease)
c.put("a", "2", lease=1234)
c.put("b", "3", lease=lease)
value, meta = c.get("b")
say("metadata", (value, meta.lease_id, meta.version))
say("keys", sorted(lease.keys))
c.put("a", "free")
say("keys after a put without it", lease.keys)
say("refreshed", [(r.ID, r.TTL) for r in lease.refresh()])
refused("granted again", lambda: c.lease(5, lease_id=1234))
refused("too long", lambda: c.lease(9000000001))
refused("revoked, not there", lambda: c.revoke_lease(77))
refused("put, not there", lambda: c.put("x", "y", lease=77))
say("refreshed, not there", [(r.ID, r.TTL) for r in c.refresh_lease(77)])
info = c.get_lease_info(77)
say("info, not there", (info.ID, info.TTL, info.grantedTTL))
lease.revoke()
say("after the end", (c.get("a")[0], c.get("b")[0]))

short = c.lease(2)
begun = time.monotonic()
c.put("short", "x", lease=short)
while c.get("short")[0] is not None:
    assert time.monotonic() - begun < 10, "it never ends"
say("it lasted", 1.9 < time.monotonic() - begun < 5)
