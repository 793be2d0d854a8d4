// Package syncmark remembers how much of a growing file is known to be on
// stable storage, in a small file beside it.
//
// A file that is only appended to ends, after a power loss, anywhere behind its
// last sync. Its reader then meets bad bytes and cannot tell an append that was
// never acknowledged, which is harmless, from damage to one that was. The mark
// tells them apart: it is written after each sync of the file and before anybody
// is told of it, and says how long the file was and what its bytes summed to.
// Damage below the mark is damage; beyond it nothing was promised.
//
// The mark file has two slots, 4096 bytes apart so that no torn block hits both,
// and they are written in turn. A slot is, little endian:
//
//	magic(4) "KVsm"  length(8)  sum(4)  check(4)
//
// where sum is the CRC-32C of the first length bytes of the file and check that
// of the slot's first 16 bytes. The good slot with the greater length counts:
// a promise is never taken back. Losing the newer slot costs nothing but the
// verdict on the bytes between the two.
package syncmark

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/storage/engine"
)

const (
	slotBytes = 20
	slotGap   = 4096
	magic     = 0x6d73564b
)

// Suffix is what the name of a mark file adds to the name of the file it is
// about.
const Suffix = ".synced"

// Sums are CRC-32C; Table is for the writer of the file, who adds them up.
var Table = crc32.MakeTable(crc32.Castagnoli)

// ErrBroken: neither slot of a mark file is good.
var ErrBroken = errors.New("no good promise in the mark file")

// ErrPromise: a file does not have the bytes that were promised.
var ErrPromise = errors.New("bytes that were synced have changed or are gone")

// Promise says that the first Length bytes of a file, which sum to Sum, are on
// stable storage.
type Promise struct {
	Length int64
	Sum    uint32
}

// Mark is an open mark file. Its methods are called by the one writer of the
// file that it is about.
type Mark struct {
	f    env.File
	next int64
}

// Open opens or makes the mark file of file. The directory is the caller's to
// sync.
func Open(fs env.FS, file string) (*Mark, error) {
	f, err := fs.OpenReadWrite(file+Suffix, env.Engine)
	if err != nil {
		return nil, err
	}
	return &Mark{f: f}, nil
}

// Write stages a promise; it counts once Sync or StartSync is done.
func (m *Mark) Write(p Promise) error {
	var slot [slotBytes]byte
	binary.LittleEndian.PutUint32(slot[:], magic)
	binary.LittleEndian.PutUint64(slot[4:], uint64(p.Length))
	binary.LittleEndian.PutUint32(slot[12:], p.Sum)
	binary.LittleEndian.PutUint32(slot[16:], crc32.Checksum(slot[:16], Table))
	if _, err := m.f.WriteAt(slot[:], m.next*slotGap); err != nil {
		return err
	}
	m.next = 1 - m.next
	return nil
}

// Sync waits until the last promise is durable.
func (m *Mark) Sync() error { return m.f.SyncData() }

// StartSync is Sync without waiting where env.StartSync need not wait for an idle
// caller.
func (m *Mark) StartSync(done func(error)) { env.StartSync(m.f, true, done) }

// Close closes the mark file.
func (m *Mark) Close() error { return m.f.Close() }

// Load reads the promise about file and sets the mark so that the next one goes
// to the other slot. Errors: *engine.CorruptionError with ErrBroken, the file
// system's.
func (m *Mark) Load(file string) (Promise, error) {
	best, at := Promise{Length: -1}, int64(0)
	for i := range int64(2) {
		var slot [slotBytes]byte
		n, err := m.f.ReadAt(slot[:], i*slotGap)
		if err != nil && !errors.Is(err, io.EOF) {
			return Promise{}, err
		}
		if p, ok := decodeSlot(slot[:n]); ok && p.Length > best.Length {
			best, at = p, i
		}
	}
	if best.Length < 0 {
		return Promise{}, &engine.CorruptionError{File: file + Suffix, Offset: 0, Err: ErrBroken}
	}
	m.next = 1 - at
	return best, nil
}

func decodeSlot(slot []byte) (Promise, bool) {
	if len(slot) < slotBytes || binary.LittleEndian.Uint32(slot) != magic ||
		crc32.Checksum(slot[:16], Table) != binary.LittleEndian.Uint32(slot[16:]) {
		return Promise{}, false
	}
	p := Promise{Length: int64(binary.LittleEndian.Uint64(slot[4:])), Sum: binary.LittleEndian.Uint32(slot[12:])}
	return p, p.Length >= 0
}

// Check says whether data, the bytes of a file, keeps the promise.
func (p Promise) Check(data []byte) bool {
	return int64(len(data)) >= p.Length && crc32.Checksum(data[:p.Length], Table) == p.Sum
}
