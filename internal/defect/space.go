package defect

// The mistakes about space and alarms that the tests of what they are in find. The
// simulator finds them too, but they are none of All.
const (
	// FullRefusesAll: without space deletions are refused too, and compactions, and with
	// them the way out.
	FullRefusesAll Defect = 2000 + iota
	// NestedPutFree: a put within a txn within a txn is admitted without space.
	NestedPutFree
	// AlarmsOutliveLoad: a snapshot's alarms are not taken up.
	AlarmsOutliveLoad
	// AlarmsForgotten: alarms are not stored.
	AlarmsForgotten
	// DisarmEndsOthers: the end of one member's alarm ends those of the others.
	DisarmEndsOthers
	// CorruptTakenForFull: without agreement deletions are still obeyed.
	CorruptTakenForFull
	endOfSpace
)

var space = [...]string{
	"full-refuses-all", "nested-put-free", "alarms-outlive-load", "alarms-forgotten", "disarm-ends-others",
	"corrupt-taken-for-full",
}

// Space lists the mistakes about space and alarms.
func Space() (all []Defect) {
	for d := FullRefusesAll; d < endOfSpace; d++ {
		all = append(all, d)
	}
	return all
}
