# What OpenStack's client of the JSON gateway does. The argument is a port.
import sys
import threading

from etcd3gw.client import Etcd3Client
from etcd3gw.lock import Lock

client = Etcd3Client(host='127.0.0.1', port=int(sys.argv[1]), api_path='/v3/')
print('members: %d' % len(client.members()))
print('put: %s' % client.put('foo', 'bar'))
print('get: %s' % client.get('foo'))
print('get of nothing: %s' % client.get('none'))
print('create: %s, again: %s' % (client.create('once', '1'), client.create('once', '2')))
print('replace: %s, of another: %s' % (client.replace('once', '1', '3'), client.replace('once', '1', '4')))
client.put('foo1', 'ä'.encode())
print('a prefix: %s' % [(v, kv['key'], kv['version']) for v, kv in client.get_prefix('foo')])
print('all: %s' % len(client.get_all()))
print('status: %s' % sorted(k for k in client.status() if k in ('header', 'leader', 'raftTerm', 'version', 'dbSize')))
print('delete: %s, again: %s' % (client.delete('foo1'), client.delete('foo1')))
lease = client.lease(ttl=100)
print('lease: %s' % (lease.ttl() in (99, 100)))
client.put('leased', 'x', lease=lease)
print('refresh: %s, keys: %s' % (lease.refresh(), lease.keys()))
print('revoke: %s, then: %s' % (lease.revoke(), client.get('leased')))
with Lock('l', ttl=60, client=client) as lock:
    print('lock: %s, another: %s' % (lock.is_acquired(), Lock('l', ttl=60, client=client).acquire()))

events, cancel = client.watch('w')
said = threading.Timer(0, lambda: [client.put('w', '1'), client.delete('w')])
said.start()
for expected in range(2):
    e = next(events)
    print('event: %s' % [e.get('type'), e['kv']['key'], e['kv'].get('value')])
said.join()
cancel()
try:
    client.transaction({'compare': [], 'success': [{'request_put': {'value': 'eA=='}}], 'failure': []})
except Exception as e:
    print('refused: %s' % type(e).__name__)
