package metrics

import (
	"google.golang.org/grpc/codes"

	"github.com/kvorum/kvorum/internal/rpc"
)

// streamNames are etcd's names of the streams whose failures it counts.
var streamNames = map[string]string{"etcdserverpb.Watch/Watch": "watch", "etcdserverpb.Lease/LeaseKeepAlive": "lease-keepalive"}

// Calls tells of the calls of a gRPC server. extensive adds how long those of each
// method took.
func Calls(stats *rpc.Stats, extensive bool) Source {
	return func(s *Sink) {
		for _, m := range stats.Methods() {
			labels := []string{"grpc_method", m.Method, "grpc_service", m.Service, "grpc_type", m.Type}
			s.Counter("grpc_server_started_total", "Calls begun on the server.", m.Started, labels...)
			s.Counter("grpc_server_msg_received_total", "Messages received on the server.", m.Received, labels...)
			s.Counter("grpc_server_msg_sent_total", "Messages sent by the server.", m.Sent, labels...)
			for code := codes.OK; code <= codes.Unauthenticated; code++ {
				s.Counter("grpc_server_handled_total", "Calls ended on the server, whatever came of them.", m.Handled[code],
					append([]string{"grpc_code", code.String()}, labels...)...)
			}
			if extensive {
				s.SecondsUpTo("grpc_server_handling_seconds", "How long calls took on the server.", m.Took.Add(m.Failed), rpc.HandlingBounds, labels...)
			}
			if api := streamNames[m.Service+"/"+m.Method]; api != "" {
				const name, help = "etcd_network_server_stream_failures_total", "Messages of streams that could not be received or sent, by no doing of the client's."
				s.Counter(name, help, m.NotReceived, "Type", "receive", "API", api)
				s.Counter(name, help, m.NotSent, "Type", "send", "API", api)
			}
			switch {
			case m.Type == rpc.UnaryKind:
				s.request(&m)
			case m.Method == "Snapshot":
				s.SecondsUpTo("etcd_disk_backend_snapshot_duration_seconds", "How long backups took, as fast as they were read.", m.Took, rpc.BackupBounds)
			}
		}
		received, sent := stats.Bytes()
		s.Counter("etcd_network_client_grpc_received_bytes_total", "Bytes received on the connections of gRPC clients.", received)
		s.Counter("etcd_network_client_grpc_sent_bytes_total", "Bytes sent on the connections of gRPC clients.", sent)
	}
}

// request shows how long the unary calls of a method took that there were.
func (s *Sink) request(m *rpc.MethodCount) {
	for _, how := range []string{"true", "false"} {
		d := m.Took
		if how == "false" {
			d = m.Failed
		}
		if d.Count() > 0 {
			s.SecondsUpTo("etcd_server_request_duration_seconds", "How long requests of each type took.", d, rpc.RequestBounds, "type", m.Method, "success", how)
		}
		if m.Method == "Range" {
			s.SecondsUpTo("etcd_server_range_duration_seconds", "How long ranges took, from the request's arrival on.", d, rpc.RangeBounds, "success", how)
		}
	}
}
