package wal

import (
	"encoding/binary"
	"hash/crc32"
)

// A segment is a row of blocks, a block is a head and eight sectors that each
// end in a trailer:
//
//	block   4096 = head 32, then 4000 bytes of payload spread over
//	sector   512 = ... 504 bytes ... | tag 4 | CRC32C of the 508 bytes before it 4
//	head      32 = nonce 8 | sequence 8 | number 4 | count 4 | length 4 | CRC32C 4
//
// The tag is the segment's nonce folded to 32 bits, so that each sector says by
// itself whether it belongs to this life of the file. Disks tear between
// sectors; only thus can a torn block be told from a damaged one (rule 2).
const (
	blockBytes   = 4096
	sectorBytes  = 512
	trailerBytes = 8
	headBytes    = 32
	sectorRoom   = sectorBytes - trailerBytes
	firstRoom    = sectorRoom - headBytes
	blockRoom    = blockBytes - headBytes - trailerBytes*blockBytes/sectorBytes
	checkOffset  = 28
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var le = binary.LittleEndian

// head is what every block begins with.
type head struct {
	nonce uint64
	// seq numbers the frames of the whole log from 1; the frame that holds a
	// segment's header has 0.
	seq uint64
	// number is the block's place in its frame, count the frame's blocks.
	number, count uint32
	// length is the frame's payload in bytes.
	length uint32
}

// tagOf folds a nonce to the tag of its sectors.
func tagOf(nonce uint64) uint32 { return uint32(nonce) ^ uint32(nonce>>32) }

// finish fills in head, tags and checksums of a block whose payload is in place.
func (h head) finish(b []byte) {
	le.PutUint64(b, h.nonce)
	le.PutUint64(b[8:], h.seq)
	le.PutUint32(b[16:], h.number)
	le.PutUint32(b[20:], h.count)
	le.PutUint32(b[24:], h.length)
	tag := tagOf(h.nonce)
	check := crc32.Update(0, castagnoli, b[:checkOffset])
	for at := sectorBytes; at < blockBytes; at += sectorBytes {
		trailer := b[at+sectorRoom : at+sectorBytes]
		le.PutUint32(trailer, tag)
		le.PutUint32(trailer[4:], crc32.Checksum(b[at:at+sectorRoom+4], castagnoli))
		check = crc32.Update(check, castagnoli, trailer)
	}
	// The block's CRC covers the head and the trailers of the other sectors, and
	// through their checksums all of the block; the first sector's covers it.
	le.PutUint32(b[checkOffset:], check)
	trailer := b[sectorRoom:sectorBytes]
	le.PutUint32(trailer, tag)
	le.PutUint32(trailer[4:], crc32.Checksum(b[:sectorRoom+4], castagnoli))
}

// readHead reads the head of a block without looking at any checksum.
func readHead(b []byte) head {
	return head{
		nonce: le.Uint64(b), seq: le.Uint64(b[8:]),
		number: le.Uint32(b[16:]), count: le.Uint32(b[20:]), length: le.Uint32(b[24:]),
	}
}

// openBlock reads the head of a block; ok says that the whole block is as it was
// written, in whichever life of the file.
func openBlock(b []byte) (h head, ok bool) {
	h = readHead(b)
	tag := tagOf(h.nonce)
	check := crc32.Update(0, castagnoli, b[:checkOffset])
	for at := 0; at < blockBytes; at += sectorBytes {
		trailer := b[at+sectorRoom : at+sectorBytes]
		if le.Uint32(trailer) != tag || le.Uint32(trailer[4:]) != crc32.Checksum(b[at:at+sectorRoom+4], castagnoli) {
			return h, false
		}
		if at > 0 {
			check = crc32.Update(check, castagnoli, trailer)
		}
	}
	return h, check == le.Uint32(b[checkOffset:]) && h.count > 0 && h.number < h.count
}

// sectorKind is what a sector looks like by itself.
type sectorKind uint8

const (
	// blank was never written.
	blank sectorKind = iota
	// stale is whole and of another life of the file.
	stale
	// ours is whole and of this life.
	ours
	// broken is none of these: no write of ours left it so.
	broken
)

// classify looks at one sector; tag is that of the segment's present life.
func classify(sector []byte, tag uint32) sectorKind {
	trailer := sector[sectorRoom:sectorBytes]
	if le.Uint32(trailer[4:]) == crc32.Checksum(sector[:sectorRoom+4], castagnoli) {
		if le.Uint32(trailer) == tag {
			return ours
		}
		return stale
	}
	for _, c := range sector {
		if c != 0 {
			return broken
		}
	}
	return blank
}

// blocksFor is how many blocks a payload takes.
func blocksFor(length int) int { return (length + blockRoom - 1) / blockRoom }

// locate finds byte offset of a payload in blocks that follow each other: where
// it stands, and how many payload bytes follow it without a gap.
func locate(offset int) (at, room int) {
	block, rest := offset/blockRoom, offset%blockRoom
	if rest < firstRoom {
		return block*blockBytes + headBytes + rest, firstRoom - rest
	}
	rest -= firstRoom
	sector, within := 1+rest/sectorRoom, rest%sectorRoom
	return block*blockBytes + sector*sectorBytes + within, sectorRoom - within
}

// scatter writes p as payload from offset on; gather reads it back.
func scatter(blocks []byte, offset int, p []byte) {
	for len(p) > 0 {
		at, room := locate(offset)
		n := copy(blocks[at:at+min(room, len(p))], p)
		p, offset = p[n:], offset+n
	}
}

func gather(dst, blocks []byte, offset int) {
	for len(dst) > 0 {
		at, room := locate(offset)
		n := copy(dst, blocks[at:at+min(room, len(dst))])
		dst, offset = dst[n:], offset+n
	}
}
