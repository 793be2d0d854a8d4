"""More of python3-etcd3's KV API: what it says is compared with etcd's own."""
import io
import sys

import etcd3

c = etcd3.client(host="127.0.0.1", port=int(sys.argv[1]))
t = c.transactions


def pairs(answers):
    return [(m.key.decode(), v.decode()) for v, m in answers]


def say(what, value):
    print(what + ":", value)


first = c.put("start", "x").header.revision
say("put again with the value before", c.put("start", "y", prev_kv=True).prev_kv.value)
value, meta = c.get("start")
say("metadata", (value, meta.key, meta.create_revision - first, meta.mod_revision - first, meta.version, meta.lease_id))
say("get of nothing", c.get("nothing"))
say("get of nothing, serializable", c.get("nothing", serializable=True))
say("response", (c.get_response("start").count, c.get_response("start").header.revision - first, len(c.get_response("start").kvs)))

for i in range(5):
    c.put("list/%d" % i, str(5 - i))
say("prefix", pairs(c.get_prefix("list/")))
say("prefix, descending", pairs(c.get_prefix("list/", sort_order="descend")))
say("prefix, by value", pairs(c.get_prefix("list/", sort_order="ascend", sort_target="value")))
say("prefix, by version", len(list(c.get_prefix("list/", sort_order="ascend", sort_target="version"))))
say("prefix, by mod, descending", pairs(c.get_prefix("list/", sort_order="descend", sort_target="mod")))
say("prefix, keys only", pairs(c.get_prefix("list/", keys_only=True)))
say("prefix of nothing", pairs(c.get_prefix("none/")))
say("range", pairs(c.get_range("list/1", "list/3")))
say("prefix response", c.get_prefix_response("list/").count)
say("range response", (c.get_range_response("list/1", "list/4").count, c.get_range_response("list/1", "list/4").more))
say("all", pairs(c.get_all()))
say("all, descending", pairs(c.get_all(sort_order="descend", sort_target="key")))

say("put if not exists", c.put_if_not_exists("once", "1"))
say("put if not exists, again", c.put_if_not_exists("once", "2"))
say("replace", c.replace("once", "1", "3"))
say("replace, again", c.replace("once", "1", "4"))
say("replaced", c.get("once")[0])

ok, answers = c.transaction(
    compare=[t.value("once") == "3", t.version("once") > 1, t.create("once") != 0, t.mod("once") < 1 << 40],
    success=[t.put("txn", "then"), t.get("txn"), t.get("once"), t.delete("once")],
    failure=[t.put("txn", "else")],
)
say("transaction", (ok, [type(a).__name__ for a in answers]))
say("what it read", [pairs(a) for a in answers if isinstance(a, list)])
say("deleted", [a.response_delete_range.deleted for a in answers if hasattr(a, "response_delete_range")])
ok, answers = c.transaction(compare=[t.version("once") > 0], success=[], failure=[t.get("txn")])
say("the other branch", (ok, pairs(answers[0])))
ok, answers = c.transaction(compare=[], success=[t.txn(compare=[t.version("inner") == 0], success=[t.put("inner", "1")], failure=[]), t.get("txn")], failure=[])
say("a transaction in a transaction", (ok, c.get("inner")[0]))

say("delete", c.delete("txn"))
say("delete, again", c.delete("txn"))
say("delete with the value before", c.delete("inner", prev_kv=True, return_response=True).prev_kvs[0].value)
say("delete response", c.delete("start", return_response=True).deleted)
say("delete prefix", c.delete_prefix("list/").deleted)
say("delete prefix, again", c.delete_prefix("list/").deleted)
say("all is gone", pairs(c.get_all()))

binary = bytes(range(256))
c.put(binary, binary[::-1])
say("any bytes", c.get(binary)[0] == binary[::-1])
c.delete(binary)
c.put("umlaut", "ä水")
say("text", c.get("umlaut")[0].decode())
c.put("empty", "")
say("empty", c.get("empty")[0])
for key in ("umlaut", "empty"):
    c.delete(key)
say("all is gone again", pairs(c.get_all()))

last = c.put("compact", "1").header.revision
c.put("compact", "2")
say("compact", c.compact(last))
say("compact, physical", c.compact(last + 1, physical=True))
for revision in (last, last + 1000):
    try:
        c.compact(revision)
        say("compact %d" % (revision - last), "done")
    except Exception as e:
        say("compact %d" % (revision - last), (e.code().name, e.details()))
try:
    c.put("", "x")
except Exception as e:
    say("put without key", (type(e).__name__, e.code().name, e.details()))
try:
    c.transaction(compare=[], success=[t.put("a", "1"), t.put("a", "2")], failure=[])
except Exception as e:
    say("one key twice", (type(e).__name__, e.code().name, e.details()))

status = c.status()
members = list(c.members)
say("status", (type(status.version).__name__, status.db_size > 0, status.raft_index > 0, status.raft_term > 0))
say("leader", status.leader.id == members[0].id)
say("members", [(m.name, len(m.peer_urls), m.client_urls[0].endswith(sys.argv[1])) for m in members])
say("defragment", c.defragment())
say("hash", type(c.hash()).__name__)
say("alarms", list(c.list_alarms()))
c.close()
