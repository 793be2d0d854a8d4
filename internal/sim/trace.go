package sim

import (
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/state/command"
)

// trace folds everything that happens into one number, and on the second run of
// a seed also writes down its story. Telling must not change what happens: it
// draws nothing and decides nothing.
type trace struct {
	hash    uint64
	events  uint64
	telling bool
	brief   bool
	out     io.Writer // when set, is told every line
	lines   []string  // the last keptLines, as a ring
	told    int
	// marks counts the rare things that were reached (see Marks).
	marks map[string]uint64
}

// Marks are the rare things that many worlds together must reach: a simulator
// that never loads a snapshot says nothing about snapshots. A test asserts them.
var Marks = []string{
	markSnapshot, markTruncated, markDamage, markDamagedLog, markDiskError, markDiskFull, markOpCrash, markStartCrash,
	markAudit, markTimeout, markTooMany, markUnknownApplied, markLostLeader, markCompactedRead, markPowerAll, markForked, markGivenUp,
	markPieces, markHash, markSplit, markRolling,
	markChange[command.AddMember], markChange[command.AddLearner], markChange[command.RemoveMember], markChange[command.PromoteMember],
	markPast, markBookmark, markOvertaken, markEnded, markLocked, markNoted,
	markToken, markTokenTaken, markDenied, markOutdated, markRevoked,
	markFull, markAlarmed, markScarce, markStopped, markDisarmed, markSigned, markForged, markSignedOver,
	markJoint, markLost, markRemoved, markShutDown, markStrict,
}

// markChange are the marks of answered changes, by kind.
var markChange = [...]string{
	command.AddMember: "a member was added", command.AddLearner: "a learner was added",
	command.RemoveMember: "a member was removed", command.PromoteMember: "a learner was promoted",
}

const (
	markSnapshot       = "a snapshot was loaded"
	markTruncated      = "a log was truncated"
	markDamage         = "damage was refused by name"
	markDamagedLog     = "a member lived on with a damaged log"
	markDiskError      = "a disk error ended a member"
	markDiskFull       = "a full disk ended a member"
	markOpCrash        = "a member went down in the middle of an operation"
	markStartCrash     = "a member went down while it started"
	markAudit          = "a promise was audited"
	markTimeout        = "a call timed out"
	markTooMany        = "a call was refused: too many"
	markUnknownApplied = "a write without an answer was applied"
	markLostLeader     = "a leader stepped down for want of a quorum"
	markCompactedRead  = "a read met a compaction"
	markForked         = "a member started with a log that had another entry at the store's mark"
	markGivenUp        = "porcupine gave up on a key"
	markPieces         = "a range was answered in pieces"
	markHash           = "a hash was the oracle's"
	markJoint          = "two voters were exchanged at once"
	markLost           = "a member was lost with its disk"
	markRemoved        = "a removed member stopped by itself"
	markShutDown       = "a removed member was shut down"
	markStrict         = "a change was refused by the strict check"
	markSplit          = "the network was split"
	markRolling        = "all members were restarted one after the other"
	markPast           = "a watch read the history"
	markBookmark       = "a watch was given a bookmark"
	markOvertaken      = "a watch was overtaken by a compaction"
	markEnded          = "a lease has ended by itself"
	markLocked         = "a lock was taken"
	markNoted          = "a lease was checkpointed"
	markToken          = "a token was given"
	markTokenTaken     = "a token was taken"
	markDenied         = "somebody was refused what is not his"
	markOutdated       = "a command met another revision of users and roles than it was judged by"
	markRevoked        = "a watch ended with its permission"
	markFull           = "somebody was refused for want of space by his member"
	markAlarmed        = "somebody was refused because of an alarm"
	markStopped        = "a command met an alarm where it was applied"
	markScarce         = "somebody was refused since a disk was near full"
	markDisarmed       = "an alarm was ended"
	markSigned         = "a signed token was taken"
	markForged         = "a forged token was refused"
	markSignedOver     = "a signed token had ended"
	markPowerAll       = "all members lost their power at once"
)

// mark takes note of something rare. It is not part of the hash.
func (t *trace) mark(name string) {
	if t.marks == nil {
		t.marks = map[string]uint64{}
	}
	t.marks[name]++
}

// keptLines is how much of a story is kept: its tail matters.
const keptLines = 400

// The kinds of events, folded into the hash.
const (
	eventTurn uint64 = iota + 1
	eventTask
	eventSync
	eventSend
	eventDeliver
	eventApply
	eventCall
	eventReturn
	eventFault
	eventStart
	eventRole
	eventEnd
	eventWatch
	eventWatched
	eventExpire
	eventSpace
)

// fold adds an event and its numbers to the hash.
func (t *trace) fold(kind uint64, values ...uint64) {
	t.events++
	h := mix(t.hash ^ kind)
	for _, v := range values {
		h = mix(h + v)
	}
	t.hash = h
}

// tell adds a line to the story.
func (t *trace) tell(at env.Instant, format string, args ...any) {
	if !t.telling && t.out == nil {
		return
	}
	line := fmt.Sprintf("%12.6f  ", float64(at)/1e9) + fmt.Sprintf(format, args...)
	if t.out != nil {
		fmt.Fprintln(t.out, line)
	}
	if len(t.lines) < keptLines {
		t.lines = append(t.lines, line)
	} else {
		t.lines[t.told%keptLines] = line
	}
	t.told++
}

// tellDetail adds a line to a story that is not to be brief.
func (t *trace) tellDetail(at env.Instant, format string, args ...any) {
	if !t.brief {
		t.tell(at, format, args...)
	}
}

// story is the tail of what was told.
func (t *trace) story() string {
	if t.told <= keptLines {
		return strings.Join(t.lines, "\n")
	}
	first := t.told % keptLines
	return fmt.Sprintf("... %d lines before ...\n", t.told-keptLines) +
		strings.Join(append(append([]string{}, t.lines[first:]...), t.lines[:first]...), "\n")
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// digest is a number for bytes, to be folded.
func digest(b []byte) uint64 { return mix(uint64(crc32.Checksum(b, castagnoli)) ^ uint64(len(b))<<32) }

func digestString(s string) uint64 { return digest([]byte(s)) }
