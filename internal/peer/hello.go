package peer

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/kvorum/kvorum/internal/id"
)

// The versions of the protocol that this program speaks. Both sides name a range,
// the highest version in both is spoken.
const (
	lowestVersion  = 1
	highestVersion = 1
)

// hello is what the one who dials says, behind the magic.
type hello struct {
	lowest, highest byte
	lane            Lane
	cluster         id.Cluster
	from, to        id.Member
	// ping and silence are how often the one who dials gives a sign of life, and
	// how long each side endures none.
	ping, silence time.Duration
	// server is the version of the program, for people; urls are where the one who
	// dials can be dialled: the other side may not know it yet, or not its new place.
	server string
	urls   []string
}

// reply answers a hello: code is welcome, or why the connection is refused.
type reply struct {
	code    byte
	version byte
	cluster id.Cluster
	member  id.Member
	server  string
	text    string
}

// The codes of a reply.
const (
	welcome byte = iota
	refusedVersion
	refusedCluster
	refusedMember // it is not the one who was meant
	refusedRemoved
	refusedUnknown
	refusedHello // malformed
	refusedBusy
	codes
)

// maxURLs bounds the list in a hello.
const maxURLs = 16

// AppendTo appends the encoding of h.
func (h *hello) AppendTo(buf []byte) []byte {
	buf = append(buf, h.lowest, h.highest, byte(h.lane))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(h.cluster))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(h.from))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(h.to))
	buf = binary.LittleEndian.AppendUint32(buf, uint32(h.ping.Milliseconds()))
	buf = binary.LittleEndian.AppendUint32(buf, uint32(h.silence.Milliseconds()))
	buf = appendText(buf, h.server)
	buf = append(buf, byte(len(h.urls)))
	for _, u := range h.urls {
		buf = appendText(buf, u)
	}
	return buf
}

// decodeHello reads a hello. Of one that speaks no version of ours only the range
// is read; one that speaks later versions too may say more at its end.
func decodeHello(data []byte) (h hello, bad *refused) {
	r := greeting{rest: data}
	h.lowest, h.highest = r.byte(), r.byte()
	if r.bad || h.lowest > h.highest {
		return h, refuse(refusedHello, "malformed greeting")
	}
	if h.lowest > highestVersion || h.highest < lowestVersion {
		return h, refuse(refusedVersion, "incompatible peer protocol: versions %d to %d were offered, this member speaks %d to %d",
			h.lowest, h.highest, lowestVersion, highestVersion)
	}
	h.lane = Lane(r.byte())
	h.cluster, h.from, h.to = id.Cluster(r.uint64()), id.Member(r.uint64()), id.Member(r.uint64())
	h.ping = time.Duration(r.uint32()) * time.Millisecond
	h.silence = time.Duration(r.uint32()) * time.Millisecond
	h.server = r.text()
	count := int(r.byte())
	r.bad = r.bad || count > maxURLs || h.lane >= lanes
	for range count {
		h.urls = append(h.urls, r.text())
		if r.bad {
			break
		}
	}
	if r.bad || len(r.rest) > 0 && h.highest <= highestVersion {
		return hello{}, refuse(refusedHello, "malformed greeting")
	}
	return h, nil
}

// AppendTo appends the encoding of r.
func (r *reply) AppendTo(buf []byte) []byte {
	buf = append(buf, r.code, r.version)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.cluster))
	buf = binary.LittleEndian.AppendUint64(buf, uint64(r.member))
	return appendText(appendText(buf, r.server), r.text)
}

func decodeReply(data []byte) (reply, error) {
	r := greeting{rest: data}
	p := reply{code: r.byte(), version: r.byte(), cluster: id.Cluster(r.uint64()), member: id.Member(r.uint64()),
		server: r.text(), text: r.text()}
	if r.bad || len(r.rest) > 0 || p.code >= codes || (p.code == welcome && (p.version < lowestVersion || p.version > highestVersion)) {
		return reply{}, fmt.Errorf("peer: malformed answer to a greeting")
	}
	return p, nil
}

// maxText bounds a text in a greeting.
const maxText = 512

func appendText(buf []byte, text string) []byte {
	text = text[:min(len(text), maxText)]
	return append(binary.LittleEndian.AppendUint16(buf, uint16(len(text))), text...)
}

// greeting takes values from the front of rest; after the first that is not there
// it is bad and yields zeros.
type greeting struct {
	rest []byte
	bad  bool
}

func (r *greeting) take(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return make([]byte, min(n, 8))
	}
	part := r.rest[:n]
	r.rest = r.rest[n:]
	return part
}

func (r *greeting) byte() byte     { return r.take(1)[0] }
func (r *greeting) uint32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *greeting) uint64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

func (r *greeting) text() string {
	n := int(binary.LittleEndian.Uint16(r.take(2)))
	if n > maxText {
		r.bad = true
	}
	if r.bad {
		return ""
	}
	return string(r.take(n))
}
