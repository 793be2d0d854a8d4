package sim

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Little room in every way at once: worlds in which members fill, alarms come and go by
// themselves and by hand, disks are near full and members are sent states or die keep
// every promise. The profiles are those of the mistakes; the families draw them singly.
func TestCrampedWorlds(t *testing.T) {
	skipAlone(t)
	for name, tilt := range map[string]func(*swarm){
		"by hand": crampedByHand, "disks": crampedDisks, "slowly": crampedSlowly,
		"people": crampedPeople, "behind": crampedBehind, "restarting": crampedRestarting, "signed": peopledSigned,
	} {
		t.Run(name, func(t *testing.T) {
			for _, replicas := range []int{1, 3} {
				o := Options{Seed: 1, Replicas: replicas, Profile: tilt}
				if r := Run(o); r.Failure != nil {
					o.Tell = true
					t.Errorf("%d members: %v\n%s", replicas, r.Failure, Run(o).Story)
				}
			}
		})
	}
}

// A member that others have filled up to its quota, not beyond, has no reason for an
// alarm. It found one as soon as somebody who had ended the alarm of another began to
// delete: tombstones are counted.
func TestWhoDisarmsFirstAndDeletesThenIsNotStopped(t *testing.T) {
	s := newScene(t, 3, func(s *swarm) {
		s.space = spaceSwarm{quota: 20_000, spenders: 1, pause: never, keep: 100 * time.Millisecond}
	})
	c, r := s.spenders[0], s.leader()
	s.keeper.still, c.wakeAt = true, env.Never
	for n := 0; ; n++ {
		body := c.big()
		body.Key = fmt.Appendf(nil, "s%d", n)
		if err := s.spend(r, body); errors.Is(err, command.ErrNoSpace) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	s.pass(400 * time.Millisecond)
	full := command.Alarm{Member: r.member, Type: command.AlarmNoSpace}
	if !slices.Equal(s.ledger.alarms.now, []command.Alarm{full}) || r.bytes() >= r.room.quota {
		t.Fatalf("%d bytes, alarms %v", r.bytes(), s.ledger.alarms.now)
	}
	if err := s.spend(r, &command.AlarmDisarm{Alarm: full}); err != nil {
		t.Fatal(err)
	}
	if err := s.spend(r, &command.DeleteRangeRequest{Key: []byte("s"), End: []byte("t")}); err != nil || r.bytes() < r.room.quota {
		t.Fatalf("%v, %d bytes", err, r.bytes())
	}
	s.pass(400 * time.Millisecond)
	if len(s.ledger.alarms.now) > 0 {
		t.Errorf("alarms %v, and nothing has grown", s.ledger.alarms.now)
	}
	s.keeper.still = false
	s.end()
}

// A member looks ten times a second. An alarm that was raised for what it holds and ended
// again in between is ended: it came back, since the member had not seen it. (World
// 10001158, in which the member lagged.)
func TestAnAlarmThatEndsBetweenTwoLooksStaysEnded(t *testing.T) {
	s := newScene(t, 1, func(s *swarm) {
		s.space = spaceSwarm{quota: 20_000, spenders: 1, pause: never, keep: 100 * time.Millisecond}
	})
	c, r := s.spenders[0], s.leader()
	s.keeper.still, c.wakeAt = true, env.Never
	for r.bytes()+2*bigBytes < r.room.quota {
		if err := s.spend(r, c.big()); err != nil {
			t.Fatal(err)
		}
	}
	s.until("it has just looked", func() bool { return r.room.due > s.env.Now().Add(95*time.Millisecond) })
	for n := 0; r.bytes() < r.room.quota; n++ {
		client := s.clients[n%len(s.clients)]
		client.begin(r, draft{request: c.big()})
		s.until("it is put", func() bool { return client.current == nil })
	}
	full := command.Alarm{Member: r.member, Type: command.AlarmNoSpace}
	for _, body := range []command.Body{&command.AlarmRaise{Alarm: full}, &command.AlarmDisarm{Alarm: full}} {
		if err := s.spend(r, body); err != nil {
			t.Fatal(err)
		}
	}
	if r.room.due < s.env.Now() || len(s.ledger.alarms.now) > 0 {
		t.Fatalf("it has looked meanwhile, or alarms are %v", s.ledger.alarms.now)
	}
	s.pass(400 * time.Millisecond)
	if len(s.ledger.alarms.now) > 0 {
		t.Errorf("alarms %v, and nothing has grown", s.ledger.alarms.now)
	}
	client := s.clients[0]
	client.begin(r, draft{request: c.big()})
	s.until("it is told of what grew after that", func() bool { return slices.Contains(s.ledger.alarms.now, full) })
	end := s.env.Now().Add(s.calmBound())
	s.keeps(end, r, func(t *talk) { s.keeper.tidy(t) })
	s.keeps(end, r, func(t *talk) { s.keeper.disarm(t, []command.Alarm{full}) })
	s.keeper.still = false
	s.end()
}
