// What the npm package etcd3 does with watches, leases, locks and elections; what it
// says is compared with etcd's own.
const { Etcd3 } = require('etcd3');

const hosts = `http://127.0.0.1:${process.argv[2]}`;
const client = new Etcd3({ hosts });
const other = new Etcd3({ hosts });
const say = (what, value) => console.log(`${what}: ${JSON.stringify(value)}`);

async function refused(what, promise) {
  try {
    await promise;
    say(what, 'done');
  } catch (e) {
    say(what, [e.constructor.name, e.message]);
  }
}

// until waits for something that others bring about.
async function until(what, so) {
  for (const begun = Date.now(); !(await so()); await new Promise(r => setTimeout(r, 5))) {
    if (Date.now() - begun > 15000) throw new Error(`waited in vain: ${what}`);
  }
}

// told collects events, and waits for so many.
function told(emitter, names) {
  const list = [];
  for (const name of names) emitter.on(name, (...args) => list.push([name, ...args]));
  return async n => {
    await until(`${n} of ${names}`, () => list.length >= n);
    return list.splice(0, n);
  };
}

async function watches() {
  const start = (await client.put('w/first').value('0')).header.revision;
  const watcher = await client.watch().prefix('w/').withPreviousKV().create();
  const events = told(watcher, ['put', 'delete']);
  const one = await client.watch().key('w/a').only('put').create();
  const ones = told(one, ['put']);
  await client.put('w/a').value('1');
  await client.put('x').value('outside');
  await client.put('w/a').value('2');
  await client.delete().key('w/a');
  const text = ([name, kv, prev]) => [name, kv.key.toString(), kv.value.toString(), kv.mod_revision - start, kv.version, prev ? prev.value.toString() : null];
  say('events', (await events(3)).map(text));
  say('one', (await ones(2)).map(text));
  await watcher.cancel();
  await one.cancel();
  const past = await client.watch().prefix('w/').startRevision(String(Number(start) + 1)).create();
  say('past', (await told(past, ['put', 'delete'])(3)).map(text));
  await past.cancel();
}

async function leases() {
  const lease = client.lease(2);
  await lease.put('l/kept').value('x');
  const renewed = told(lease, ['keepaliveSucceeded']);
  await renewed(4); // longer than it lasts
  say('after more than its time', await client.getAll().prefix('l/').strings());
  await lease.revoke();
  say('revoked', await client.getAll().prefix('l/').keys());
  const short = client.lease(2, { autoKeepAlive: false });
  await short.put('l/short').value('x');
  const begun = Date.now();
  await until('the end of a lease', async () => !(await client.get('l/short').exists()));
  const lasted = Date.now() - begun;
  say('it lasted', lasted > 1800 && lasted < 6000);
  say('renewed after its end', await short.keepaliveOnce().catch(e => e.constructor.name));
}

async function locks() {
  const lock = client.lock('lock').ttl(10);
  await lock.acquire();
  await refused('the other in vain', other.lock('lock').ttl(10).acquire());
  await lock.release();
  say('by the other', await other.lock('lock').ttl(10).do(() => client.get('lock').exists()));
  await until('the lock to go', async () => !(await client.get('lock').exists()));
  say('free', await client.lock('lock').ttl(10).do(() => 'held'));
}

async function elections() {
  const one = client.election('e', 10);
  const two = other.election('e', 10);
  say('before it', (await one.leader()) === undefined);
  const seen = await two.observe();
  const leaders = told(seen, ['change']);
  const leader = async () => (await leaders(1))[0][1];
  const first = one.campaign('first');
  first.on('error', e => say('error', e.message));
  const elected = told(first, ['elected']);
  await elected(1);
  say('told', await leader());
  const second = two.campaign('second');
  second.on('error', e => say('error', e.message));
  const then = told(second, ['elected']);
  await until('a second candidate', async () => (await client.getAll().prefix('election/e/').keys()).length === 2);
  await first.proclaim('first again');
  say('told', await leader());
  say('leads', await two.leader());
  await first.resign();
  await then(1);
  say('told', await leader());
  say('leads', await one.leader());
  await second.resign();
  await seen.cancel();
}

async function main() {
  await watches();
  await leases();
  await locks();
  await elections();
  client.close();
  other.close();
}

main().catch(e => {
  console.error(e);
  process.exit(1);
});
