package state_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/kvorum/kvorum/internal/env/simenv"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

func noSpace(member uint64) command.Alarm {
	return command.Alarm{Member: id.Member(member), Type: command.AlarmNoSpace}
}

func corrupt(member uint64) command.Alarm {
	return command.Alarm{Member: id.Member(member), Type: command.AlarmCorrupt}
}

// alarms applies a command about alarms and returns those that it tells of.
func (r *replica) alarms(body command.Body) []command.Alarm {
	r.t.Helper()
	resp, err := r.do(body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.(*command.AlarmResponse).Alarms
}

func nested(op command.Op) *command.TxnRequest {
	return &command.TxnRequest{Failure: []command.Op{{Txn: &command.TxnRequest{Success: []command.Op{op}}}}}
}

// What each alarm stops and what it lets pass, request by request (spec 6.4).
func TestWhatAlarmsStop(t *testing.T) {
	put := command.Op{Put: &command.PutRequest{Key: key("n")}}
	for _, c := range []struct {
		name             string
		body             command.Body
		atFull, atBroken error
	}{
		{"a put", &command.PutRequest{Key: key("a")}, command.ErrNoSpace, command.ErrCorrupt},
		{"a put in a branch", &command.TxnRequest{Success: []command.Op{put}}, command.ErrNoSpace, command.ErrCorrupt},
		{"a put in the branch that is not taken", &command.TxnRequest{Failure: []command.Op{put}}, command.ErrNoSpace, command.ErrCorrupt},
		{"a put in a txn in a txn", nested(put), command.ErrNoSpace, command.ErrCorrupt},
		{"a grant", &command.LeaseGrant{ID: 9, TTL: 60}, command.ErrNoSpace, command.ErrCorrupt},
		{"a deletion", &command.DeleteRangeRequest{Key: key("a")}, nil, command.ErrCorrupt},
		{"a deletion in a txn", &command.TxnRequest{Success: []command.Op{{Delete: &command.DeleteRangeRequest{Key: key("a")}}}}, nil, command.ErrCorrupt},
		{"a deletion in a txn in a txn", nested(command.Op{Delete: &command.DeleteRangeRequest{Key: key("a")}}), nil, command.ErrCorrupt},
		{"a compaction", &command.CompactRequest{Revision: 2}, nil, command.ErrCorrupt},
		{"a revocation", &command.LeaseRevoke{ID: 7}, nil, command.ErrCorrupt},
		{"the end of leases", &command.LeaseExpire{Leases: []command.LeaseName{{ID: 7, Birth: 1}}}, nil, command.ErrCorrupt},
		{"a user", &command.UserAdd{Name: "ann"}, nil, nil},
		{"a member's word", &command.MemberPublish{Member: 3, Name: "three"}, nil, nil},
		{"another alarm", &command.AlarmRaise{Alarm: noSpace(5)}, nil, nil},
		{"the end of an alarm", &command.AlarmDisarm{Alarm: noSpace(5)}, nil, nil},
	} {
		for _, under := range []struct {
			alarms []command.Alarm
			want   error
		}{
			{nil, nil},
			{[]command.Alarm{noSpace(2)}, c.atFull},
			{[]command.Alarm{noSpace(0)}, c.atFull},
			{[]command.Alarm{corrupt(0)}, c.atBroken},
			{[]command.Alarm{noSpace(1), corrupt(2)}, c.atBroken},
			{[]command.Alarm{{Member: 1, Type: 17}}, nil},
		} {
			r := newReplica(t, 1)
			r.put("a", "1")
			r.put("a", "2")
			if _, err := r.do(&command.LeaseGrant{ID: 7, TTL: 60}); err != nil {
				t.Fatal(err)
			}
			for _, a := range under.alarms {
				r.alarms(&command.AlarmReport{Alarm: a})
			}
			want := under.want
			if len(under.alarms) == 2 && c.atBroken == nil {
				want = c.atFull
			}
			before := r.hash()
			if got := r.m.View().Stopped(c.body); !errors.Is(got, want) || got != nil && want == nil {
				t.Errorf("%s under %v, before it is proposed: %v, want %v", c.name, under.alarms, got, want)
			}
			r.entry(1, command.Encode(nil, command.Header{Term: 1}, c.body))
			err := r.apply()[0].Err
			if !errors.Is(err, want) || err != nil && want == nil {
				t.Errorf("%s under %v: %v, want %v", c.name, under.alarms, err, want)
			}
			if err != nil && r.hash() != before {
				t.Errorf("%s was refused, and changed something", c.name)
			}
		}
	}
}

// Alarms are told by member and type; nothing but the very same alarm ends one.
func TestAlarmsAreEndedOneByOne(t *testing.T) {
	r := newReplica(t, 1)
	quiet := r.hash()
	if got := r.alarms(&command.AlarmRaise{Alarm: command.Alarm{Member: 3}}); len(got) != 0 || r.hash() != quiet {
		t.Errorf("raised nothing, and was told %v", got)
	}
	for _, a := range []command.Alarm{noSpace(2), corrupt(1), noSpace(1), noSpace(2), {Member: 0, Type: -1}} {
		if got := r.alarms(&command.AlarmRaise{Alarm: a}); !slices.Equal(got, []command.Alarm{a}) {
			t.Errorf("raised %v, and was told %v", a, got)
		}
	}
	all := []command.Alarm{{Member: 0, Type: -1}, noSpace(1), corrupt(1), noSpace(2)}
	if got := r.m.View().Alarms(); !slices.Equal(got, all) {
		t.Errorf("alarms %v, want %v", got, all)
	}
	for _, none := range []command.Alarm{{}, {Member: 1}, noSpace(0), corrupt(2)} {
		if got := r.alarms(&command.AlarmDisarm{Alarm: none}); len(got) != 0 || len(r.m.View().Alarms()) != len(all) {
			t.Errorf("disarmed %v, which is none, and was told %v", none, got)
		}
	}
	if got := r.alarms(&command.AlarmDisarm{Alarm: noSpace(1)}); !slices.Equal(got, []command.Alarm{noSpace(1)}) {
		t.Errorf("disarmed one, and was told %v", got)
	}
	if _, err := r.do(&command.PutRequest{Key: key("a")}); !errors.Is(err, command.ErrCorrupt) {
		t.Errorf("under another member's alarm: %v", err)
	}
	r.alarms(&command.AlarmDisarm{Alarm: corrupt(1)})
	if _, err := r.do(&command.PutRequest{Key: key("a")}); !errors.Is(err, command.ErrNoSpace) {
		t.Errorf("under another member's alarm: %v", err)
	}
	r.alarms(&command.AlarmWithdraw{Alarm: noSpace(2)})
	r.alarms(&command.AlarmDisarm{Alarm: command.Alarm{Member: 0, Type: -1}})
	if r.hash() != quiet {
		t.Error("something is left of alarms that have ended")
	}
}

// Alarms last over a crash, travel with the state, and are part of its hash; those that
// a snapshot does not have are gone.
func TestAlarmsAreOfTheState(t *testing.T) {
	r, other := newReplica(t, 1), newReplica(t, 2)
	quiet := r.hash()
	all := []command.Alarm{noSpace(1), corrupt(1<<63 + 1)}
	for _, a := range all {
		r.alarms(&command.AlarmReport{Alarm: a})
	}
	want := r.hash()
	if want == quiet {
		t.Error("no part of the hash")
	}
	other.alarms(&command.AlarmReport{Alarm: noSpace(9)})
	r.copyTo(other)
	if got := other.m.View().Alarms(); other.hash() != want || !slices.Equal(got, all) {
		t.Errorf("came with %v", got)
	}
	if err := r.m.StartFlush(); err != nil {
		t.Fatal(err)
	}
	r.settle()
	r.crash(simenv.PowerCrash)
	if got := r.m.View().Alarms(); r.hash() != want || !slices.Equal(got, all) {
		t.Errorf("after a crash: %v", got)
	}
}

// copyTo sends the state to another replica.
func (r *replica) copyTo(other *replica) {
	r.t.Helper()
	saved, err := r.m.Freeze()
	if err != nil {
		r.t.Fatal(err)
	}
	defer saved.Close()
	err = receive(other.m, saved.At(), func() ([]byte, bool) {
		chunk, ok, err := saved.Next(200)
		if err != nil {
			r.t.Fatal(err)
		}
		return chunk, ok
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// Alarms are root's to raise and to end; a member's own word asks nobody.
func TestWhoMayChangeAlarms(t *testing.T) {
	r := newReplica(t, 1)
	r.people()
	now := r.m.View().Auth().Revision()
	for _, c := range []struct {
		user string
		body command.Body
		want error
	}{
		{"", &command.AlarmRaise{Alarm: noSpace(1)}, command.ErrUserEmpty},
		{"ann", &command.AlarmRaise{Alarm: noSpace(1)}, command.ErrPermissionDenied},
		{"root", &command.AlarmRaise{Alarm: noSpace(1)}, nil},
		{"", &command.AlarmReport{Alarm: noSpace(2)}, nil},
		{"eve", &command.PutRequest{Key: key("a")}, command.ErrNoSpace}, // what is full is full for everybody
		{"ann", &command.AlarmDisarm{Alarm: noSpace(1)}, command.ErrPermissionDenied},
		{"root", &command.AlarmDisarm{Alarm: noSpace(1)}, nil},
	} {
		if err := r.as(c.user, now, c.body); !errors.Is(err, c.want) || err != nil && c.want == nil {
			t.Errorf("%q: %v: %v, want %v", c.user, c.body.Kind(), err, c.want)
		}
	}
	if got := r.m.View().Alarms(); !slices.Equal(got, []command.Alarm{noSpace(2)}) {
		t.Errorf("alarms %v", got)
	}
}
