package grpcproxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// unwired reads the events of a response as its client does.
func unwired(t *testing.T, r *pb.WatchResponse) []*mvccpb.Event {
	t.Helper()
	raw, err := proto.Marshal(r)
	whole := new(pb.WatchResponse)
	if err == nil {
		err = proto.Unmarshal(raw, whole)
	}
	if err != nil {
		t.Error(err)
	}
	return whole.Events
}

// Many watches of one key are one watch at the cluster, whoever's streams they are on, and
// each is told of each event once. Another key, another filter, the values before, and
// another token are another interest.
func TestWatchesOfOneInterestAreOne(t *testing.T) {
	play(t, func(s *scene) {
		one, two, other := s.guest("ann"), s.guest("ann"), s.guest("bob")
		one.on("a", 0)
		one.on("a", 0)
		two.on("a", 0)
		if got := s.asked(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("the cluster is asked for %v", got)
		}
		if beside, _ := s.proxy.counts(); beside != 2 {
			t.Errorf("%d hang on another's watch", beside)
		}
		other.on("a", 0)
		two.on("b", 0)
		two.watches(&pb.WatchCreateRequest{Key: []byte("a"), PrevKv: true})
		two.watches(&pb.WatchCreateRequest{Key: []byte("a"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}})
		if got := s.asked(); !slices.Equal(got, []string{"a", "a", "a", "a", "b"}) {
			t.Errorf("the cluster is asked for %v", got)
		}
		s.put("a", "x")
		// Members of a group are told one after the other, in any order.
		one.wasInAnyOrder("0 2:a=x", "0 created", "1 2:a=x", "1 created")
		other.was("0 created", "0 2:a=x")
		two.wasInAnyOrder("0 2:a=x", "0 created", "1 created", "2 2:a=x", "2 created", "3 2:a=x", "3 created")
		if _, events := s.proxy.counts(); events != 2 {
			t.Errorf("%d events were spared", events)
		}
		one.leaves()
		two.leaves()
		other.leaves()
		if got := s.asked(); len(got) > 0 {
			t.Errorf("nobody is left, and the cluster is still asked for %v", got)
		}
	})
}

// Who comes late with a revision of the past is told the past, and then what all are told:
// nothing twice, and nothing is left out where one meets the other.
func TestWhoComesLateIsToldThePast(t *testing.T) {
	for start := int64(1); start <= 7; start++ {
		play(t, func(s *scene) {
			early, late := s.guest(""), s.guest("")
			early.on("a", 0)
			for _, key := range []string{"a", "b", "a"} { // 2 to 4
				s.put(key, "old")
			}
			late.on("a", start)
			for range 3 { // 5 to 7
				s.put("a", "new")
			}
			want := []string{"0 created"}
			for rev, text := range map[int64]string{2: "old", 4: "old", 5: "new", 6: "new", 7: "new"} {
				if rev >= start {
					want = append(want, fmt.Sprintf("0 %d:a=%s", rev, text))
				}
			}
			slices.Sort(want[1:])
			late.was(want...)
			early.was("0 created", "0 2:a=old", "0 4:a=old", "0 5:a=new", "0 6:a=new", "0 7:a=new")
			if got := s.asked(); len(got) != 1 && start < 7 { // who begins with what is to come waits for it
				t.Errorf("from %d on: in the end the cluster is asked for %v", start, got)
			}
			early.leaves()
			late.leaves()
		})
	}
}

// The end of one watch of many is told to whoever ended it, and to nobody else; the last
// one takes the watch at the cluster with it. A number that there is not is no error.
func TestOneOfManyIsCanceled(t *testing.T) {
	play(t, func(s *scene) {
		one, two := s.guest(""), s.guest("")
		one.on("a", 0)
		one.on("a", 0)
		two.on("a", 0)
		one.cancels(0)
		one.cancels(77)
		one.was("0 created", "1 created", "0 canceled ")
		s.put("a", "x")
		one.was("1 2:a=x")
		two.was("0 created", "0 2:a=x")
		two.leaves()
		if got := s.asked(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("the cluster is asked for %v", got)
		}
		one.cancels(1)
		one.was("1 canceled ")
		if got := s.asked(); len(got) > 0 {
			t.Errorf("the cluster is asked for %v", got)
		}
		// The number is free again for who asks for it, and given once.
		one.watches(&pb.WatchCreateRequest{Key: []byte("b"), WatchId: 1})
		one.watches(&pb.WatchCreateRequest{Key: []byte("c"), WatchId: 1})
		one.was("1 created", "-1 refused: "+duplicate)
		one.leaves()
	})
}

// A watch of what is compacted is told so; those who watch the same and are not that far
// back do not hear of it.
func TestAWatchOfWhatIsCompactedIsToldSo(t *testing.T) {
	play(t, func(s *scene) {
		fresh, stale := s.guest(""), s.guest("")
		fresh.on("a", 0)
		for range 4 {
			s.put("a", "x")
		}
		s.set(func() { s.compacted = 4 })
		stale.on("a", 2)
		stale.was("0 created", "0 compacted 4")
		stale.on("a", 4)
		s.put("a", "y")
		stale.was("1 created", "1 4:a=x", "1 5:a=x", "1 6:a=y")
		fresh.was("0 created", "0 2:a=x", "0 3:a=x", "0 4:a=x", "0 5:a=x", "0 6:a=y")
		fresh.leaves()
		stale.leaves()
	})
}

// A cluster that is away for a while is not noticed by who watches: what happened
// meanwhile is told once. Who was compacted meanwhile is told that, each by himself.
func TestTheClusterIsAwayForAWhile(t *testing.T) {
	play(t, func(s *scene) {
		one, two, past := s.guest(""), s.guest(""), s.guest("")
		s.put("b", "old") // 2
		s.put("c", "old") // 3
		one.on("a", 0)
		two.on("a", 0)
		past.on("b", 2) // nothing of b has come after what was there: it stands alone
		s.put("a", "x") // 4
		s.breaks()
		s.put("a", "y") // 5
		s.put("b", "y") // 6
		time.Sleep(10 * time.Second)
		s.set(func() { s.down = false })
		time.Sleep(2 * long)
		s.put("a", "z") // 7
		for _, g := range []*guest{one, two} {
			g.was("0 created", "0 4:a=x", "0 5:a=y", "0 7:a=z")
		}
		past.was("0 created", "0 2:b=old", "0 6:b=y")
		if got := s.asked(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("the cluster is asked for %v", got)
		}
		s.breaks()
		s.put("a", "lost") // 8
		s.put("a", "kept") // 9
		s.set(func() { s.down, s.compacted = false, 9 })
		two.on("a", 0)
		time.Sleep(2 * long)
		one.was("0 compacted 9")
		two.was("1 created", "0 compacted 9")
		past.was("0 compacted 9")
		s.put("a", "on") // 10
		two.was("1 10:a=on")
		one.was()
		one.leaves()
		two.leaves()
		past.leaves()
	})
}

// A watch that the cluster ends for all, as where a permission is taken back, is asked for
// by each: everybody is told what holds for him.
func TestTheClusterEndsTheWatchOfAll(t *testing.T) {
	play(t, func(s *scene) {
		one, two := s.guest(""), s.guest("")
		one.on("a", 0)
		two.on("a", 0)
		s.asked()
		s.ends("it is over")
		s.put("a", "x")
		one.was("0 created", "0 2:a=x")
		two.was("0 created", "0 2:a=x")
		s.set(func() { s.forbids = true })
		s.ends("it is over")
		one.was("0 canceled not allowed")
		two.was("0 canceled not allowed")
		one.on("a", 0)
		one.was("-1 refused: not allowed")
		one.leaves()
		two.leaves()
	})
}

// Progress that is asked for is told once all that the stream watches is told, for all of
// it at once; words that the cluster says of itself are told to who wanted them.
func TestProgress(t *testing.T) {
	play(t, func(s *scene) {
		one, two := s.guest(""), s.guest("")
		one.wantsProgress() // there is nothing to tell of
		one.on("a", 0)
		two.watches(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true})
		s.put("b", "x") // 2
		s.put("b", "x") // 3
		one.was("0 created")
		one.wantsProgress()
		one.was("-1 up to 3")
		s.progresses()
		two.was("0 created", "0 up to 3")
		one.was()
		// A cluster that does not answer is asked again when there is a reason to.
		s.set(func() { s.dumb = true })
		one.wantsProgress()
		one.was()
		s.set(func() { s.dumb = false })
		one.on("b", 0)
		time.Sleep(2 * brief)
		one.was("1 created", "-1 up to 3")
		one.leaves()
		two.leaves()
	})
}

// A stream with watches that stand alone, since nothing has come after their past, and
// others that are shared is told of progress all the same: who waits for it, as the
// apiserver does to read from its cache, would wait for a write in a quiet range.
func TestProgressOfWatchesHereAndThere(t *testing.T) {
	play(t, func(s *scene) {
		g := s.guest("")
		s.put("quiet", "x") // 2
		s.put("b", "y")     // 3
		g.on("quiet", 2)
		g.on("a", 0)
		s.put("a", "z") // 4
		g.was("0 created", "0 2:quiet=x", "1 created", "1 4:a=z")
		if got := s.asked(); !slices.Equal(got, []string{"a", "quiet"}) {
			t.Errorf("the cluster is asked for %v", got)
		}
		s.put("b", "z") // 5
		g.wantsProgress()
		g.was("-1 up to 5")
		// It is asked for anew each time.
		s.put("b", "z") // 6
		g.wantsProgress()
		g.was("-1 up to 6")
		// The one that is waited for may go.
		s.set(func() { s.dumb = true })
		g.wantsProgress()
		s.set(func() { s.dumb = false })
		g.cancels(0)
		g.was("0 canceled ", "-1 up to 6")
		g.leaves()
	})
}

// Who does not read holds nobody up, and is not remembered for more than there is room:
// once he reads he is told everything, once and in order.
func TestWhoDoesNotReadHoldsNobodyUp(t *testing.T) {
	play(t, func(s *scene) {
		slow, quick := s.guest(""), s.guest("")
		slow.on("a", 0)
		quick.on("a", 0)
		s.asked()
		slow.was("0 created")
		slow.reads(false)
		large := strings.Repeat("v", 100<<10)
		const puts = 50
		want := []string{"0 created"}
		for i := range puts {
			s.put("a", large)
			want = append(want, fmt.Sprintf("0 %d:a=%d bytes", i+2, len(large)))
		}
		quick.was(want...)
		var unsent int
		s.proxy.mu.Lock()
		for _, trunk := range s.proxy.trunks {
			for d := range trunk.users {
				d.mu.Lock()
				unsent = max(unsent, d.bytes)
				d.mu.Unlock()
			}
		}
		s.proxy.mu.Unlock()
		if unsent > 2*mostUnsent || unsent < mostUnsent {
			t.Errorf("%d bytes wait for who does not read", unsent)
		}
		slow.reads(true)
		slow.was(want[1:]...)
		s.put("a", "x")
		slow.was("0 52:a=x")
		if got := s.asked(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("he is back, and the cluster is asked for %v", got)
		}
		slow.leaves()
		quick.leaves()
	})
}

// Who leaves while he does not read, with a watch that waits for room, is let go of.
func TestWhoLeavesWithoutReadingIsLetGo(t *testing.T) {
	play(t, func(s *scene) {
		large := strings.Repeat("v", 300<<10)
		for range 10 {
			s.put("a", large)
		}
		g := s.guest("")
		g.reads(false)
		g.on("a", 1)
		g.leaves()
		synctest.Wait()
		if got := s.asked(); len(got) > 0 {
			t.Errorf("the cluster is asked for %v", got)
		}
	})
}
