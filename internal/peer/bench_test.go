package peer

import (
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/id"
)

// cpu is what this process has used, in both of its parts.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAppends sends messages of 300 bytes from one member to another, both in
// this process. burst is how many a turn of the stepper sends before it waits for
// them to arrive; a large one fills writes. CPU is that of both members.
func BenchmarkAppends(b *testing.B) {
	for _, c := range []struct {
		name  string
		lane  Lane
		burst int
		size  int
	}{
		{"300B/one by one", Appends, 1, 300},
		{"300B/bursts of 100", Appends, 100, 300},
		{"300B/stream", Appends, 10000, 300},
		{"32KB/stream", Appends, 100, 32 << 10},
		{"1MB chunks", Snapshots, 4, 1 << 20},
	} {
		b.Run(c.name, func(b *testing.B) {
			var arrived atomic.Int64
			signal := make(chan struct{}, 1)
			start := func(member id.Member) (*Transport, string) {
				tr := New(Options{Member: member, Cluster: 1, Clock: clock{time.Now()}, Limits: Limits{Silence: time.Minute},
					Receive: func(id.Member, Lane, []byte) {
						arrived.Add(1)
						select {
						case signal <- struct{}{}:
						default:
						}
					}})
				bound, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				rest := tr.Divert(bound)
				b.Cleanup(func() { rest.Close(); tr.Close() })
				return tr, "http://" + bound.Addr().String()
			}
			from, _ := start(1)
			to, url := start(2)
			_ = to
			from.SetMembers([]Address{{2, []string{url}}})
			for from.Room(2, c.lane) == 0 {
				runtime.Gosched()
			}
			m := payload(make([]byte, c.size))
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			b.ResetTimer()
			before := cpu()
			sent := int64(0)
			for range b.N {
				for !from.Send(2, c.lane, m) {
					<-signal
				}
				if sent++; sent%int64(c.burst) == 0 {
					for arrived.Load() < sent {
						<-signal
					}
				}
			}
			for arrived.Load() < sent {
				<-signal
			}
			b.StopTimer()
			b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// payload is a message that is there already, as entries are.
type payload []byte

// AppendTo appends the bytes.
func (p payload) AppendTo(buf []byte) []byte { return append(buf, p...) }

// Size is the number of bytes.
func (p payload) Size() int { return len(p) }
