"""python3-etcd3 with users, over TLS (it keeps tokens from clear text): each phase says
what it sees.

users.py PHASE CA CERT KEY PORT... where a phase is before, without or after."""
import sys

import etcd3
import grpc

phase, ca, cert, key = sys.argv[1:5]
members = [m.rsplit(":", 1) for m in sys.argv[5:]]


def say(what, value):
    print(what + ":", value)


def failed(what, call):
    try:
        say(what, call())
    except grpc.RpcError as e:
        say(what, (e.code().name, e.details()))
    except etcd3.exceptions.Etcd3Exception as e:
        say(what, type(e).__name__)


def client(member, **user):
    host, port = members[member]
    return etcd3.client(host=host, port=int(port), ca_cert=ca, cert_cert=cert, cert_key=key, timeout=10, **user)


def told(stub, client, message):
    """The generated stub tells codes and texts, which the library's own methods hide."""
    return lambda: type(stub(message, 10, metadata=client.metadata)).__name__


def put(client, key):
    return told(client.kvstub.Put, client, etcd3.etcdrpc.PutRequest(key=key, value=b"1"))


def read(client, key, end=b""):
    return told(client.kvstub.Range, client, etcd3.etcdrpc.RangeRequest(key=key, range_end=end))


def logins():
    failed("wrong password", lambda: client(0, user="ann", password="wrong"))
    failed("wrong user", lambda: client(0, user="eve", password="annpw"))


def before():
    nobody = client(0)
    failed("nobody puts", put(nobody, b"a1"))
    failed("nobody reads", read(nobody, b"a1"))
    logins()
    ann = client(0, user="ann", password="annpw")
    ann.put("a1", "1")
    ann.put("a2", "2")
    for i in range(len(members)):
        there = client(i, user="ann", password="annpw")
        say("get", there.get("a1")[0])
        say("prefix", [m.key for _, m in there.get_prefix("a")])
        failed("other", read(there, b"other"))
        failed("everything", read(there, b"\0", b"\0"))
        failed("write other", put(there, b"other"))
        # A token is every member's.
        there.metadata = ann.metadata
        failed("with the token of the first", read(there, b"a1"))
        there.metadata = (("token", "nobodys.1"),)
        failed("with a token of nobody", read(there, b"a1"))
    say("transaction", ann.transaction(
        compare=[ann.transactions.value("a1") == "1"],
        success=[ann.transactions.put("a1", "one")], failure=[])[0])
    op = etcd3.etcdrpc.RequestOp(request_put=etcd3.etcdrpc.PutRequest(key=b"other", value=b"1"))
    failed("half a transaction", told(ann.kvstub.Txn, ann, etcd3.etcdrpc.TxnRequest(failure=[op])))
    events, cancel = ann.watch_prefix("a3")
    ann.put("a3", "3")
    event = next(events)
    say("event", (event.key, event.value))
    cancel()
    lease = ann.lease(60)
    ann.put("a4", "4", lease)
    say("refreshed", [r.TTL for r in lease.refresh()])
    lease.revoke()
    say("revoked", ann.get("a4"))
    with ann.lock("a5", ttl=60) as lock:
        say("locked", lock.is_acquired())
    failed("members", lambda: len(list(ann.members)))
    root = client(0, user="root", password="rootpw")
    say("root", root.get("other")[0])
    say("delete", ann.delete("a2"))


def without():
    """A member is gone: the others go on."""
    for i in range(len(members)):
        ann = client(i, user="ann", password="annpw")
        ann.put("a6", str(i))
        say("get", ann.get("a6")[0])
        failed("other", read(ann, b"other"))
    logins()


def after():
    """All are there again."""
    for i in range(len(members)):
        ann = client(i, user="ann", password="annpw")
        say("prefix", [(m.key, v) for v, m in ann.get_prefix("a")])
        failed("write other", put(ann, b"other"))
    logins()


{"before": before, "without": without, "after": after}[phase]()
