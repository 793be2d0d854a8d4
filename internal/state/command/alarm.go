package command

import (
	"encoding/binary"
	"errors"

	"github.com/kvorum/kvorum/internal/id"
)

// What is refused while an alarm is in force; the texts are etcd's (spec 1.3, 6.4).
var (
	ErrNoSpace = errors.New("etcdserver: mvcc: database space exceeded")
	ErrCorrupt = errors.New("etcdserver: corrupt cluster")
)

// AlarmType says what is wrong. The numbers are those of the API; one that is unknown
// is kept and stops nothing.
type AlarmType int32

// The types of alarms.
const (
	// AlarmNone is no alarm; a question about it is one about all of them.
	AlarmNone AlarmType = 0
	// AlarmNoSpace: a member has no room for more. Commands that cost space are refused.
	AlarmNoSpace AlarmType = 1
	// AlarmCorrupt: members have different keys. Nothing changes any more.
	AlarmCorrupt AlarmType = 2
)

// Alarm is one alarm of one member. The member need not exist: 0 is what is raised
// when nobody knows which of them is wrong.
type Alarm struct {
	Member id.Member
	Type   AlarmType
}

// What happens to alarms.
type (
	// AlarmRaise raises one because somebody asked for it.
	AlarmRaise struct{ Alarm }
	// AlarmDisarm ends exactly this one.
	AlarmDisarm struct{ Alarm }
	// AlarmReport raises one because a member says so: nobody's rights are asked.
	AlarmReport struct{ Alarm }
	// AlarmWithdraw ends one because the member that it is of says so.
	AlarmWithdraw struct{ Alarm }
)

// AlarmResponse lists the alarms that were raised or ended. Revision is the store's,
// for the header.
type AlarmResponse struct {
	Revision id.Revision
	Alarms   []Alarm
}

// Kind of each body.
func (*AlarmRaise) Kind() Kind    { return KindAlarmRaise }
func (*AlarmDisarm) Kind() Kind   { return KindAlarmDisarm }
func (*AlarmReport) Kind() Kind   { return KindAlarmReport }
func (*AlarmWithdraw) Kind() Kind { return KindAlarmWithdraw }

// Cost of each is 0: alarms are raised and ended when there is no space.
func (*AlarmRaise) Cost() int64    { return 0 }
func (*AlarmDisarm) Cost() int64   { return 0 }
func (*AlarmReport) Cost() int64   { return 0 }
func (*AlarmWithdraw) Cost() int64 { return 0 }

func (a *Alarm) appendTo(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(a.Member))
	return binary.AppendVarint(dst, int64(a.Type))
}

func (a *Alarm) decode(r *reader) {
	a.Member = id.Member(r.uvarint())
	number := r.varint()
	if a.Type = AlarmType(number); int64(a.Type) != number {
		r.fail("type of an alarm beyond 32 bits")
	}
}
