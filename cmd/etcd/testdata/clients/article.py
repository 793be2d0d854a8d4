import etcd3
# 建立连接
etcd = etcd3.client(host='127.0.0.1', port=2379)
# 添加 kv
result = etcd.put('greeting', 'hello, world!')
"""
header {
cluster_id: 14841639068965178418
member_id: 10276657743932975437
revision: 16
raft_term: 5
}
"""
# 根据 key 获得 value
result = etcd.get('greeting') # 不存在 (None, None); 存在(b'hello, world!', <etcd3.client.KVMetadata object at 0x7ffbf072de80>)
rv = result[0].decode() if result[0] else result[0] # 取解析后的值
# 删除某个 key
result = etcd.delete('greeting') # 成功删除 True, 不存在,删除失败 False
# 返回满足前缀 key 的 value
objs = etcd.get_prefix("server1")
result = [obj[0].decode() if obj[0] else obj[0] for obj in objs]
# 获取所有的 key的 value
objs = etcd.get_all()
result = [obj[0].decode() if obj[0] else obj[0] for obj in objs]
