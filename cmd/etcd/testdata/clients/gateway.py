# Calls of the JSON gateway by curl, one after the other; what comes back is printed
# without what differs from server to server. The argument is a port.
import base64
import json
import subprocess
import sys

address = 'http://127.0.0.1:' + sys.argv[1]
token = []


def b64(text):
    return base64.b64encode(text.encode()).decode()


def plain(value):
    """value without headers."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in sorted(value.items()) if k != 'header'}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value


def call(what, path, body, *options):
    command = ['curl', '-sS', '-X', 'POST', '-w', '\n%{http_code} %{content_type}', address + path]
    command += ['-d', body if isinstance(body, str) else json.dumps(body)]
    for option in list(options) + token:
        command += ['-H', option]
    said = subprocess.run(command, capture_output=True, text=True, timeout=20)
    text, status = said.stdout.rsplit('\n', 1)
    print('%s: %s' % (what, status))
    answers = []
    for line in text.strip().split('\n'):
        try:
            answer = plain(json.loads(line))
        except ValueError:
            print('  not JSON: %r' % line)
            continue
        # 3.4 says it twice, 3.7 with an empty list of details.
        for key in ('error', 'details'):
            if 'code' in answer:
                answer.pop(key, None)
        answers.append(answer)
        shown = dict(answer)
        if 'token' in shown:
            shown['token'] = '...'
        print('  ' + json.dumps(shown, sort_keys=True))
    return answers


k = b64('k')
call('put', '/v3/kv/put', {'key': k, 'value': b64('v\x00\u00e4')})
call('put with the pair before', '/v3/kv/put', {'key': k, 'value': b64('w'), 'prev_kv': True})
call('a field of the future', '/v3/kv/range', {'key': k, 'future': {'a': [1]}})
call('nothing', '/v3/kv/range', {'key': b64('none')})
call('a prefix', '/v3/kv/range', {'key': k, 'range_end': b64('l'), 'limit': '1', 'sort_order': 'DESCEND', 'sort_target': 'MOD'})
call('an enum by its number', '/v3/kv/range', {'key': k, 'sort_order': 1, 'count_only': True})
call('a number as text and as number', '/v3/kv/range', {'key': k, 'revision': 2})
call('txn', '/v3/kv/txn', {
    'compare': [{'key': k, 'target': 'VERSION', 'result': 'GREATER', 'version': '1'}],
    'success': [{'requestPut': {'key': b64('t'), 'value': b64('1')}}, {'requestRange': {'key': k}}],
    'failure': [{'request_delete_range': {'key': k}}]})
call('txn that fails', '/v3/kv/txn', {
    'compare': [{'key': k, 'target': 'CREATE', 'create_revision': '0'}],
    'failure': [{'request_delete_range': {'key': b64('t'), 'prev_kv': True}}]})
call('delete', '/v3/kv/deleterange', {'key': b64('a'), 'range_end': b64('z'), 'prev_kv': True})
call('compact', '/v3/kv/compaction', {'revision': '3'})
call('compacted', '/v3/kv/range', {'key': k, 'revision': '2'})
call('of the future', '/v3/kv/range', {'key': k, 'revision': '99'})
call('an empty key', '/v3/kv/put', {})
call('an unknown lease', '/v3/kv/put', {'key': k, 'lease': '77'})
call('grant', '/v3/lease/grant', {'ID': '77', 'TTL': '600'})
call('keep alive', '/v3/lease/keepalive', {'ID': '77'})
call('attach', '/v3/kv/put', {'key': k, 'lease': '77'})
call('time to live', '/v3/lease/timetolive', {'ID': '77', 'keys': True})
call('the older path', '/v3/kv/lease/timetolive', {'ID': '78'})
call('leases', '/v3/lease/leases', '{}')
call('revoke', '/v3/lease/revoke', {'ID': '77'})
call('revoke again', '/v3/kv/lease/revoke', {'ID': '77'})
call('grant another', '/v3/lease/grant', {'ID': '79', 'TTL': '600'})
call('lock', '/v3/lock/lock', {'name': b64('lock'), 'lease': '79'})
call('unlock', '/v3/lock/unlock', {'key': b64('lock/4f')})
call('nobody leads', '/v3/election/leader', {'name': b64('e')})
call('alarms', '/v3/maintenance/alarm', {'action': 'GET'})

watch = subprocess.Popen(['curl', '-sSN', '-X', 'POST', address + '/v3/watch', '-d', json.dumps({'create_request': {'key': k, 'start_revision': '4'}})],
                         stdout=subprocess.PIPE, text=True)
print('watch created: %s' % plain(json.loads(watch.stdout.readline())))
call('put that is watched', '/v3/kv/put', {'key': k, 'value': b64('seen')})
events = []
while len(events) < 4:
    events += plain(json.loads(watch.stdout.readline()))['result'].get('events', [])
watch.kill()
for e in events:
    print('  event %s' % json.dumps(e, sort_keys=True))

call('add a user', '/v3/auth/user/add', {'name': 'root', 'password': 'pw'})
call('add a role', '/v3/auth/role/add', {'name': 'root'})
call('another role', '/v3/auth/role/add', {'name': 'r'})
call('a permission', '/v3/auth/role/grant', {'name': 'r', 'perm': {'permType': 'READWRITE', 'key': k}})
call('that role', '/v3/auth/role/get', {'role': 'r'})
call('another user', '/v3/auth/user/add', {'name': 'u', 'password': 'pw'})
call('and her role', '/v3/auth/user/grant', {'user': 'u', 'role': 'r'})
call('the role of root', '/v3/auth/user/grant', {'user': 'root', 'role': 'root'})
call('enable', '/v3/auth/enable', '{}')
call('without a token', '/v3/kv/range', {'key': k})
call('a wrong password', '/v3/auth/authenticate', {'name': 'u', 'password': 'no'})
token = ['Authorization: ' + call('authenticate', '/v3/auth/authenticate', {'name': 'u', 'password': 'pw'})[0]['token']]
call('what she may', '/v3/kv/range', {'key': k})
call('what she may not', '/v3/kv/range', {'key': b64('x')})
token = ['Authorization: nonsense']
call('a token of nobody', '/v3/kv/range', {'key': k})
token = []
token = ['Authorization: ' + call('root', '/v3/auth/authenticate', {'name': 'root', 'password': 'pw'})[0]['token']]
call('disable', '/v3/auth/disable', '{}')
