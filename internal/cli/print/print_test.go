package print

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var update = flag.Bool("update", false, "rewrite golden files")

func header() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 0xcdf818194e3a8c32, MemberId: 0x8e9e05c52164694d, Revision: 7, RaftTerm: 2}
}

func greeting() *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte("greeting"), Value: []byte("Hello, \"etcd\"\xff"), CreateRevision: 2, ModRevision: 7, Version: 3, Lease: 0x77}
}

// answers are one of each kind, as a cluster might give them.
var answers = map[string]func(*Printer) error{
	"put": func(p *Printer) error { return p.Put(&clientv3.PutResponse{Header: header()}) },
	"put-prev-kv": func(p *Printer) error {
		return p.Put(&clientv3.PutResponse{Header: header(), PrevKv: greeting()})
	},
	"get": func(p *Printer) error {
		return p.Get(&clientv3.GetResponse{Header: header(), Kvs: []*mvccpb.KeyValue{greeting(), {Key: []byte("empty")}}, Count: 5, More: true}, false)
	},
	"get-value-only": func(p *Printer) error {
		return p.Get(&clientv3.GetResponse{Header: header(), Kvs: []*mvccpb.KeyValue{greeting()}, Count: 1}, true)
	},
	"get-nothing": func(p *Printer) error { return p.Get(&clientv3.GetResponse{Header: header()}, false) },
	"del":         func(p *Printer) error { return p.Del(&clientv3.DeleteResponse{Header: header(), Deleted: 0}) },
	"del-prev-kv": func(p *Printer) error {
		return p.Del(&clientv3.DeleteResponse{Header: header(), Deleted: 1, PrevKvs: []*mvccpb.KeyValue{greeting()}})
	},
	"txn": func(p *Printer) error {
		inner := &pb.ResponseHeader{Revision: 7}
		return p.Txn(&clientv3.TxnResponse{Header: header(), Succeeded: true, Responses: []*pb.ResponseOp{
			{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: inner, PrevKv: greeting()}}},
			{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Header: inner, Kvs: []*mvccpb.KeyValue{greeting()}, Count: 1}}},
			{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{Header: inner, Deleted: 1, PrevKvs: []*mvccpb.KeyValue{greeting()}}}},
			{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: &pb.TxnResponse{Header: inner, Responses: []*pb.ResponseOp{
				{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: inner}}},
			}}}},
		}})
	},
	"txn-failure": func(p *Printer) error { return p.Txn(&clientv3.TxnResponse{Header: header()}) },
	"watch": func(p *Printer) error {
		return p.Watch(&clientv3.WatchResponse{Header: header(), Events: []*clientv3.Event{
			{Type: clientv3.EventTypePut, Kv: greeting(), PrevKv: &mvccpb.KeyValue{Key: []byte("greeting"), Value: []byte("Hi"), CreateRevision: 2, ModRevision: 5, Version: 2}},
			{Type: clientv3.EventTypeDelete, Kv: &mvccpb.KeyValue{Key: []byte("gone"), ModRevision: 7}},
		}})
	},
	"watch-bookmark":  func(p *Printer) error { return p.Watch(&clientv3.WatchResponse{Header: header()}) },
	"watch-compacted": func(p *Printer) error { return p.Watch(&clientv3.WatchResponse{Canceled: true, CompactRevision: 6}) },
	"lease-grant": func(p *Printer) error {
		return p.LeaseGrant(&clientv3.LeaseGrantResponse{ResponseHeader: header(), ID: 0x694d77aa9e38260f, TTL: 500})
	},
	"lease-revoke": func(p *Printer) error {
		return p.LeaseRevoke(-2, &clientv3.LeaseRevokeResponse{Header: header()})
	},
	"lease-keep-alive": func(p *Printer) error {
		return p.LeaseKeepAlive(&clientv3.LeaseKeepAliveResponse{ResponseHeader: header(), ID: 0x77, TTL: 500})
	},
	"lease-ended": func(p *Printer) error { return p.LeaseEnded(0x77) },
	"lease-timetolive": func(p *Printer) error {
		return p.LeaseTimeToLive(&clientv3.LeaseTimeToLiveResponse{ResponseHeader: header(), ID: 0x77, TTL: 412, GrantedTTL: 500}, false)
	},
	"lease-timetolive-keys": func(p *Printer) error {
		return p.LeaseTimeToLive(&clientv3.LeaseTimeToLiveResponse{ResponseHeader: header(), ID: 0x77, TTL: 412, GrantedTTL: 500,
			Keys: [][]byte{[]byte("a"), []byte("b \xff")}}, true)
	},
	"lease-timetolive-gone": func(p *Printer) error {
		return p.LeaseTimeToLive(&clientv3.LeaseTimeToLiveResponse{ResponseHeader: header(), ID: 0x77, TTL: -1}, true)
	},
	"lease-list": func(p *Printer) error {
		return p.LeaseList(&clientv3.LeaseLeasesResponse{ResponseHeader: header(), Leases: []clientv3.LeaseStatus{{ID: 0x77}, {ID: -2}}})
	},
	"endpoint-hashkv": func(p *Printer) error {
		return p.EndpointHashKV([]EndpointHashKV{
			{"127.0.0.1:2379", &clientv3.HashKVResponse{Header: header(), Hash: 823235352, HashRevision: 7, CompactRevision: 3}},
			{"127.0.0.1:22379", &clientv3.HashKVResponse{Header: header()}},
		})
	},
	"member-list": func(p *Printer) error {
		h := header()
		h.Revision = 0
		return p.MemberList(&clientv3.MemberListResponse{Header: h, Members: []*pb.Member{
			{ID: 0x8e9e05c52164694d, Name: "infra0", PeerURLs: []string{"http://a:2380", "http://b:2380"}, ClientURLs: []string{"http://a:2379"}},
			{ID: 0xab, PeerURLs: []string{"http://c:2380"}, IsLearner: true},
		}})
	},
	"member-add": func(p *Printer) error {
		added := &pb.Member{ID: 0xab, PeerURLs: []string{"http://c:2380", "http://d:2380"}}
		return p.MemberAdd("infra2", &clientv3.MemberAddResponse{Header: header(), Member: added, Members: []*pb.Member{
			{ID: 0x8e9e05c52164694d, Name: "infra0", PeerURLs: []string{"http://a:2380"}, ClientURLs: []string{"http://a:2379"}},
			added,
			{ID: 0x1c, PeerURLs: []string{"http://e:2380"}, IsLearner: true},
		}})
	},
	"member-remove": func(p *Printer) error {
		return p.MemberRemove(0xab, &clientv3.MemberRemoveResponse{Header: header(), Members: []*pb.Member{
			{ID: 0x8e9e05c52164694d, Name: "infra0", PeerURLs: []string{"http://a:2380"}, ClientURLs: []string{"http://a:2379"}},
		}})
	},
	"move-leader": func(p *Printer) error {
		return p.MoveLeader(0x8e9e05c52164694d, 0xab, &clientv3.MoveLeaderResponse{Header: header()})
	},
	"downgrade": func(p *Printer) error {
		return p.Downgrade("enable", &clientv3.DowngradeResponse{Header: header(), Version: "3.7"})
	},
	"endpoint-status": func(p *Printer) error {
		return p.EndpointStatus([]EndpointStatus{
			{"127.0.0.1:2379", &clientv3.StatusResponse{Header: header(), Version: "3.7.1", StorageVersion: "3.7.0", DbSize: 24576, DbSizeInUse: 20480,
				DbSizeQuota: 2147483648, Leader: 0x8e9e05c52164694d, RaftTerm: 2, RaftIndex: 9, RaftAppliedIndex: 8}},
			{"127.0.0.1:22379", &clientv3.StatusResponse{Header: &pb.ResponseHeader{MemberId: 0xab}, Version: "3.7.1", IsLearner: true, Errors: []string{"etcdserver: no leader", "memberID:1 alarm:NOSPACE "},
				DowngradeInfo: &pb.DowngradeInfo{Enabled: true, TargetVersion: "3.6.0"}}},
		})
	},
	"endpoint-health": func(p *Printer) error {
		return p.EndpointHealth([]EndpointHealth{
			{Endpoint: "127.0.0.1:2379", Healthy: true, Took: "1.5ms"},
			{Endpoint: "127.0.0.1:22379", Took: "5.001s", Error: "context deadline exceeded"},
		})
	},
}

// Each golden file holds one answer in every format; what is not text is shown
// in hexadecimal.
func TestGolden(t *testing.T) {
	for name, write := range answers {
		t.Run(name, func(t *testing.T) {
			var got txtar.Archive
			for _, format := range []Format{Simple, Fields, JSON, Protobuf, Table} {
				for _, asHex := range []bool{false, true} {
					var out, complaints bytes.Buffer
					p, err := New(&out, &complaints, string(format), asHex)
					if err != nil {
						t.Fatal(err)
					}
					section := string(format)
					if asHex {
						section += " --hex"
					}
					data := out.Bytes
					if format == Protobuf {
						data = func() []byte { return []byte(hex.EncodeToString(out.Bytes()) + "\n") }
					}
					if err := write(p); err != nil {
						if !errors.Is(err, ErrFormat) || out.Len() > 0 {
							t.Fatalf("%s: %v, output %q", section, err, out.Bytes())
						}
						data = func() []byte { return []byte("error: " + err.Error() + "\n") }
					}
					got.Files = append(got.Files, txtar.File{Name: section, Data: bytes.ReplaceAll(data(), []byte{0xff}, []byte("<FF>"))})
					if complaints.Len() > 0 {
						got.Files = append(got.Files, txtar.File{Name: section + " stderr", Data: complaints.Bytes()})
					}
				}
			}
			compare(t, fmt.Sprintf("testdata/%s.txtar", name), txtar.Format(&got))
		})
	}
}

func compare(t *testing.T, file string, got []byte) {
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s; run with -update and read the diff\n%s", file, got)
	}
}

func TestUnknownFormat(t *testing.T) {
	_, err := New(nil, nil, "yaml", false)
	if !errors.Is(err, ErrFormat) || err.Error() != "unsupported output format" {
		t.Error(err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// An answer that could not be written is an error, never silence.
func TestFailedWrite(t *testing.T) {
	for _, format := range []Format{Simple, JSON, Table} {
		p, err := New(fullDisk{}, fullDisk{}, string(format), false)
		if err != nil {
			t.Fatal(err)
		}
		if err := answers["member-list"](p); err == nil {
			t.Errorf("%s: no error", format)
		}
	}
}
