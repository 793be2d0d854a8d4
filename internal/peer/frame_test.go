package peer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/iotest"
	"time"
)

// TestFramesComeBackWhateverTheReadsAre: bodies stay what they were while later
// ones are read.
func TestFramesComeBackWhateverTheReadsAre(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	var bodies [][]byte
	for i := range 300 {
		length := []int{0, 1, 8, 300, 4096, 70000}[i%6]
		if i == 200 {
			length = 3 << 20
		}
		body := make([]byte, length)
		for j := range body {
			body[j] = byte(r.Uint32())
		}
		bodies = append(bodies, body)
		stream = append(stream, mustFrame(byte(i%7+1), raw(body))...)
	}
	for name, from := range map[string]io.Reader{
		"whole":   bytes.NewReader(stream),
		"halves":  iotest.HalfReader(bytes.NewReader(stream)),
		"odd":     &oddReader{stream, r},
		"dataerr": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		f := &frameReader{from: from, limit: maxBody, fresh: 512}
		var back [][]byte
		for i := range bodies {
			kind, body, err := f.next()
			if err != nil || kind != byte(i%7+1) {
				t.Fatalf("%s: frame %d is of kind %d, %v", name, i, kind, err)
			}
			back = append(back, body)
		}
		if _, _, err := f.next(); err != io.EOF {
			t.Errorf("%s: the end is %v", name, err)
		}
		for i := range bodies {
			if !bytes.Equal(back[i], bodies[i]) {
				t.Errorf("%s: body %d of %d bytes changed", name, i, len(bodies[i]))
			}
		}
	}
}

// oddReader gives any number of bytes at a time.
type oddReader struct {
	rest []byte
	r    *rand.Rand
}

func (o *oddReader) Read(p []byte) (int, error) {
	if len(o.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, o.rest[:min(len(o.rest), 1+o.r.IntN(1+o.r.IntN(9000)))])
	o.rest = o.rest[n:]
	return n, nil
}

func TestDamagedFramesAreRefused(t *testing.T) {
	good := mustFrame(frameMessage, raw("some body"))
	for at := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[at] ^= 1 << bit
			f := &frameReader{from: bytes.NewReader(bad), limit: 1 << 10, fresh: 64}
			_, _, err := f.next()
			if !errors.Is(err, errDamaged) && !errors.Is(err, errTooLong) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("bit %d of byte %d: %v", bit, at, err)
			}
		}
	}
}

// TestTheWorkedExample is the one of docs/format/peer.md.
func TestTheWorkedExample(t *testing.T) {
	if got := fmt.Sprintf("% x", mustFrame(framePong, raw(nil))); got != "00 00 00 00 05 29 62 83 70" {
		t.Error(got)
	}
}

// TestALengthAloneTakesNoMemory: 64 MB are promised and nothing comes.
func TestALengthAloneTakesNoMemory(t *testing.T) {
	f := &frameReader{from: bytes.NewReader([]byte{0, 0, 0, 4, frameMessage, 0, 0, 0, 0}), limit: maxBody, fresh: 64}
	if _, _, err := f.next(); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
	if len(f.block) > step {
		t.Errorf("%d bytes were taken for a promise", len(f.block))
	}
	f = &frameReader{from: bytes.NewReader([]byte{1, 0, 0, 4, frameMessage, 0, 0, 0, 0}), limit: maxBody, fresh: 64}
	if _, _, err := f.next(); err != errTooLong {
		t.Error(err)
	}
}

func TestGreetingsComeBack(t *testing.T) {
	h := hello{lowest: 1, highest: 1, lane: Snapshots, cluster: 2, from: 3, to: 4, ping: 250 * time.Millisecond,
		silence: time.Second, server: "3.7.1", urls: []string{"http://a:1", "https://b:2"}}
	data := h.AppendTo(nil)
	back, no := decodeHello(data)
	if no != nil || !reflect.DeepEqual(back, h) {
		t.Errorf("%+v, %v", back, no)
	}
	for n := range data {
		if _, no := decodeHello(data[:n]); no == nil || no.code != refusedHello {
			t.Errorf("the first %d bytes: %v", n, no)
		}
	}
	if _, no := decodeHello(append(bytes.Clone(data), 0)); no == nil || no.code != refusedHello {
		t.Errorf("a byte behind it: %v", no)
	}
	later := h
	later.highest = 7
	if back, no := decodeHello(append(later.AppendTo(nil), "what version 7 adds"...)); no != nil || back.highest != 7 || len(back.urls) != 2 {
		t.Errorf("a later version that speaks ours too: %+v, %v", back, no)
	}
	if _, no := decodeHello([]byte{2, 9, 'x'}); no == nil || no.code != refusedVersion {
		t.Errorf("versions 2 to 9: %v", no)
	}
	p := reply{code: refusedRemoved, cluster: 2, member: 3, server: "3.7.1", text: "no"}
	if back, err := decodeReply(p.AppendTo(nil)); err != nil || back != p {
		t.Errorf("%+v, %v", back, err)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(append(mustFrame(frameMessage, raw("body")), mustFrame(framePing, raw(nil))...))
	f.Add([]byte{1, 0, 0, 4, frameMessage, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &frameReader{from: bytes.NewReader(data), limit: 1 << 16, fresh: 64}
		var again []byte
		for {
			kind, body, err := r.next()
			if err != nil {
				break
			}
			again = append(again, mustFrame(kind, raw(body))...)
		}
		if !bytes.HasPrefix(data, again) {
			t.Fatalf("%x was taken for %x", data, again)
		}
	})
}

func FuzzGreetings(f *testing.F) {
	f.Add((&hello{lowest: 1, highest: 1, server: "3.7.1", urls: []string{"http://a:1"}}).AppendTo(nil))
	f.Add((&reply{version: 1, server: "3.7.1", text: "text"}).AppendTo(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, no := decodeHello(data); no == nil && h.highest <= highestVersion && !bytes.Equal(h.AppendTo(nil), data) {
			t.Fatalf("%x was taken for %+v", data, h)
		}
		if r, err := decodeReply(data); err == nil && !bytes.Equal(r.AppendTo(nil), data) {
			t.Fatalf("%x was taken for %+v", data, r)
		}
		decodeQuestion(data)
		decodeAnswer(data)
	})
}
