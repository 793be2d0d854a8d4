package ctl

import (
	"bytes"
	"testing"
	"time"
)

// What puts were like, and what is said of it.
func TestJudgePerf(t *testing.T) {
	times := func(n int, d time.Duration, more ...time.Duration) (list []time.Duration) {
		for range n {
			list = append(list, d)
		}
		return append(list, more...)
	}
	for _, c := range []struct {
		name string
		report
		passed bool
		said   string
	}{
		{"well", report{took: times(150, 10*time.Millisecond), lasted: time.Second}, true,
			"PASS: Throughput is 150 writes/s\nPASS: Slowest request took 0.010000s\nPASS: Stddev is 0.000000s\n"},
		{"slowly", report{took: times(130, 10*time.Millisecond), lasted: time.Second}, false,
			"FAIL: Throughput too low: 130 writes/s\nPASS: Slowest request took 0.010000s\nPASS: Stddev is 0.000000s\n"},
		{"once badly", report{took: times(149, 10*time.Millisecond, 600*time.Millisecond), lasted: time.Second}, false,
			"PASS: Throughput is 150 writes/s\nFAIL: Slowest request took too long: 0.600000s\nPASS: Stddev is 0.048012s\n"},
		{"unevenly", report{took: times(75, 0, times(75, 400*time.Millisecond)...), lasted: time.Second}, false,
			"PASS: Throughput is 150 writes/s\nPASS: Slowest request took 0.400000s\nFAIL: Stddev too high: 0.200000s\n"},
		{"not at all", report{lasted: time.Second, failed: map[string]int{"b": 1, "a": 2}}, false,
			"FAIL: Throughput too low: 0 writes/s\nPASS: Slowest request took 0.000000s\nPASS: Stddev is 0.000000s\nFAIL: ERROR(a) -> 2\nFAIL: ERROR(b) -> 1\n"},
	} {
		var out bytes.Buffer
		s := &session{Process: Process{Stdout: &out}}
		if passed := s.judgePerf(c.report, 150); passed != c.passed || out.String() != c.said {
			t.Errorf("%s: %v\n%s", c.name, passed, out.String())
		}
	}
}
