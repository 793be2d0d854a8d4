package server

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/host"
)

// A store of 1 GB has 100 MB left, and everybody writes as fast as he may: each second
// takes a three hundredth of what is left, so it never ends, and lasts for minutes.
func TestThePaceOfGrowth(t *testing.T) {
	const start = env.Instant(7 * time.Second)
	p, left := &pacer{now: start}, int64(100_000_000)
	var at []int64
	for now := start; now < start.Add(10*time.Minute); now = now.Add(slowLook) {
		for {
			goes, err := p.pass(now, left, paced{cost: 1000})
			if err != nil {
				t.Fatal(err)
			}
			if !goes {
				break
			}
			left -= 1000
		}
		list, _ := p.turn(now, left, false)
		left -= int64(len(list)) * 1000
		p.waiting, p.bytes = nil, 0 // who waits has nothing to say here
		if now.Sub(start)%(100*time.Second) == 0 {
			at = append(at, left/1_000_000)
		}
	}
	for i, want := range []int64{99, 71, 51, 36, 26, 18} {
		if diff := at[i] - want; diff < -2 || diff > 2 {
			t.Errorf("after %d s %d MB are left, want %d", i*100, at[i], want)
		}
	}
}

// Those that wait go in the order of their coming, and in front of those that come.
func TestWhoWaitsGoesFirst(t *testing.T) {
	p := &pacer{}
	now, left := env.Instant(time.Second), int64(0) // the slowest pace: 4,096 bytes a second
	var went []uint64
	pass := func(n uint64, cost int64) {
		goes, err := p.pass(now, left, paced{call: host.Call{Tag: n}, cost: cost})
		if err != nil {
			t.Fatal(err)
		}
		if goes {
			went = append(went, n)
		}
	}
	turn := func(room bool) {
		list, more := p.turn(now, left, room)
		for _, c := range list {
			went = append(went, c.call.Tag)
		}
		if more != (len(p.waiting) > 0) {
			t.Errorf("more is %v", more)
		}
	}
	pass(1, 6000) // more than a second's worth: it goes, and has to be earned
	pass(2, 100)
	pass(3, 4096)
	turn(false)
	if len(went) != 1 {
		t.Fatalf("went %v", went)
	}
	now = now.Add(500 * time.Millisecond)
	pass(4, 1)
	turn(false)
	if len(went) != 3 || went[1] != 2 || went[2] != 3 {
		t.Fatalf("went %v", went)
	}
	pass(5, 1)
	turn(true)
	if len(went) != 5 || went[3] != 4 || went[4] != 5 || p.bytes != 0 {
		t.Fatalf("went %v, %d bytes wait", went, p.bytes)
	}
	pass(6, 1_000_000)
	for range mostPaced - 1 {
		pass(7, 0)
	}
	if _, err := p.pass(now, left, paced{}); !errors.Is(err, host.ErrTooManyRequests) {
		t.Errorf("one too many: %v", err)
	}
}

// A row at the slowest pace lasts for an hour, and nobody waits longer than his call may
// take. Who goes for that reason costs the others nothing.
func TestNobodyWaitsBeyondHisTime(t *testing.T) {
	now := env.Instant(time.Second)
	p := &pacer{now: now}
	for n, deadline := range []env.Instant{now.Add(time.Hour), now.Add(5 * time.Second), 0, now.Add(2 * time.Second)} {
		if goes, err := p.pass(now, 0, paced{call: host.Call{Tag: uint64(n), Deadline: deadline}, cost: 4000}); goes || err != nil {
			t.Fatalf("%d goes: %v, %v", n, goes, err)
		}
	}
	tags := func(list []paced) (tags []uint64) {
		for _, c := range list {
			tags = append(tags, c.call.Tag)
		}
		return tags
	}
	if list := p.late(now.Add(time.Second)); len(list) != 0 {
		t.Errorf("after a second %v are late", tags(list))
	}
	if list := p.late(now.Add(5 * time.Second)); !slices.Equal(tags(list), []uint64{1, 3}) || p.bytes != 8000 {
		t.Errorf("after 5 seconds %v are late, %d bytes wait", tags(list), p.bytes)
	}
	if list, more := p.turn(now.Add(6*time.Second), 0, true); !slices.Equal(tags(list), []uint64{0, 2}) || more || p.bytes != 0 {
		t.Errorf("the others are %v, more %v, %d bytes", tags(list), more, p.bytes)
	}
}
