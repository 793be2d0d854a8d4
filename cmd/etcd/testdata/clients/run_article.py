"""Runs article.py word for word against another port: statement by statement,
each value that it assigns is printed. The article's own address is 127.0.0.1:2379."""
import ast
import sys

import etcd3

port, article = int(sys.argv[1]), sys.argv[2]
connect = etcd3.client


def client(host, port_of_article):
    assert (host, port_of_article) == ("127.0.0.1", 2379)
    return connect(host=host, port=port)


etcd3.client = lambda host, port: client(host, port)

names = {}
for statement in ast.parse(open(article, encoding="utf-8").read()).body:
    exec(compile(ast.Module([statement], []), article, "exec"), names)
    if not isinstance(statement, ast.Assign):
        continue
    name = statement.targets[0].id
    value = names[name]
    if name == "objs" or name == "etcd":
        continue
    if isinstance(value, tuple):
        value = (value[0], type(value[1]).__name__)
    if hasattr(value, "header"):
        header = value.header
        value = "header" if header.cluster_id and header.member_id and header.revision and header.raft_term else "no header"
    print(name, "=", repr(value))
