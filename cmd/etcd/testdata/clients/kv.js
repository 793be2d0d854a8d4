// What the npm package etcd3 does with KV; what it says is compared with etcd's own.
const { Etcd3 } = require('etcd3');

const port = process.argv[2];
const client = new Etcd3({ hosts: `http://127.0.0.1:${port}` });
const say = (what, value) => console.log(`${what}: ${JSON.stringify(value)}`);
const text = kv => [kv.key.toString(), kv.value.toString()];

async function refused(what, promise) {
  try {
    await promise;
    say(what, 'done');
  } catch (e) {
    say(what, [e.constructor.name, e.message]);
  }
}

async function main() {
  // The article's calls.
  await client.put('greeting').value('hello, world!');
  say('get', await client.get('greeting').string());
  say('delete', (await client.delete().key('greeting')).deleted);
  say('delete again', (await client.delete().key('greeting')).deleted);
  say('get of nothing', await client.get('greeting'));
  for (const i of [3, 1, 2]) await client.put(`server1/${i}`).value(`10.0.0.${9 - i}`);
  await client.put('server2/1').value('10.0.1.1');
  say('prefix', await client.getAll().prefix('server1').strings());
  say('all', await client.getAll().strings());

  say('exists', [await client.get('server1/1').exists(), await client.get('server9').exists()]);
  say('keys', await client.getAll().prefix('server1').keys());
  say('count', await client.getAll().all().count());
  say('limit', await client.getAll().limit(2).strings());
  say('sorted by value', await client.getAll().prefix('server1').sort('Value', 'Ascend').strings());
  say('sorted by key, descending', await client.getAll().sort('Key', 'Descend').limit(1).keys());
  say('in range', await client.getAll().inRange({ start: 'server1/2', end: 'server2/2' }).keys());
  await client.put('number').value(42);
  say('number', await client.get('number').number());
  await client.put('json').value(JSON.stringify({ a: [1, null] }));
  say('json', await client.get('json').json());
  const bytes = Buffer.from([...Array(256).keys()]);
  await client.put(bytes).value(bytes);
  say('any bytes', (await client.get(bytes).buffer()).equals(bytes));
  await client.delete().key(bytes);

  const before = await client.get('number').exec();
  say('previous', text(await client.put('number').value(43).getPrevious()));
  await client.put('number').touch();
  const after = await client.get('number').exec();
  say('touched', [text(after.kvs[0]), after.header.revision - before.header.revision, after.kvs[0].version]);
  say('old revision', await client.get('number').revision(before.header.revision).string());
  say('changed since', await client.getAll().minModRevision(after.header.revision).keys());

  const txn = () => client
    .if('lock', 'Create', '==', 0)
    .and('number', 'Value', '==', '43')
    .and('number', 'Version', '>', 1)
    .then(client.put('lock').value('me'), client.get('number'))
    .else(client.get('lock'), client.delete().key('json'))
    .commit();
  const first = await txn();
  say('then', [first.succeeded, first.responses.map(r => r.response), text(first.responses[1].response_range.kvs[0])]);
  const second = await txn();
  say('else', [second.succeeded, second.responses.map(r => r.response), text(second.responses[0].response_range.kvs[0]), second.responses[1].response_delete_range.deleted]);
  say('stm', await client.stm().transact(tx => tx.get('lock').string().then(v => tx.put('lock').value(v + '+').then(() => v))));
  say('after it', await client.get('lock').string());

  const ns = client.namespace('ns/');
  await ns.put('a').value('1');
  await ns.put('b').value('2');
  say('namespace', [await ns.getAll().strings(), await client.get('ns/a').string()]);
  say('namespace deleted', (await ns.delete().all()).deleted);
  say('deleted with previous', (await client.delete().prefix('server1').getPrevious()).map(text));

  await refused('empty key', client.put('').value('x'));
  await refused('future', client.get('number').revision('99999999').string());
  await refused('one key twice', client.if('a', 'Version', '==', 0).then(client.put('b').value('1'), client.put('b').value('2')).commit());
  const now = (await client.get('number').exec()).header.revision;
  await refused('compact', client.kv.compact({ revision: now, physical: true }));
  await refused('compact again', client.kv.compact({ revision: now }));
  await refused('compacted', client.get('number').revision(before.header.revision).string());

  const status = await client.maintenance.status();
  const members = (await client.cluster.memberList({})).members;
  say('leader', status.leader === members[0].ID);
  say('members', members.map(m => [m.name, m.clientURLs[0].endsWith(port)]));
  say('alarms', (await client.maintenance.alarm({ action: 'GET' })).alarms);
  say('deleted all', (await client.delete().all()).deleted);
  say('left', await client.getAll().keys());
  client.close();
}

main().catch(e => {
  console.error(e);
  process.exit(1);
});
