package grpcproxy

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// Progress that a client asks for is told for its stream as a whole, by the least that is
// known of any of its watches: the trunk hears how far groups are, the stream's own link
// how far those are that stand alone. The trunk waits for both.

// awaitsProgress says whether progress is wanted and the trunk can tell of it: some watches
// are there, and how far all others are is known. It is then the trunk's to do.
func (d *downstream) awaitsProgress() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, shared := d.known(); !d.asks || !known || !shared {
		return false
	}
	d.asks = false
	return true
}

// known says whether of every watch it can be known how far it is, and whether any is fed
// by a group, of which the trunk knows. d.mu is held.
func (d *downstream) known() (all, shared bool) {
	for _, w := range d.watches {
		switch {
		case w.state == together:
			shared = true
		case w.state != alone || w.upTo == 0:
			return false, false
		}
	}
	return len(d.pending) == 0 && len(d.watches) > 0, shared
}

// progressed tells the client that it has all up to a revision, if every watch has: those
// in groups by the word that has come, those of its own by the latest word for them. It is
// false while that is still to be found out; a stream of which a watch has come or left
// meanwhile asks again when it is known of all.
func (d *downstream) progressed(h *pb.ResponseHeader, has func(*watch) bool) (done bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.watches) == 0 {
		return true
	}
	if known, _ := d.known(); !known {
		d.asks = true
		return true
	}
	upTo := h.GetRevision()
	for _, w := range d.watches {
		if w.state == alone {
			upTo = min(upTo, w.upTo)
		}
	}
	for _, w := range d.watches {
		// A member that is behind another may have answered: the cursor knows.
		if w.next > upTo+1 || w.state == together && !has(w) {
			if d.own != nil {
				d.own.wantProgress()
			}
			return false
		}
	}
	if upTo < h.GetRevision() {
		h = proto.Clone(h).(*pb.ResponseHeader)
		h.Revision = upTo
	}
	d.put(&pb.WatchResponse{Header: h, WatchId: -1}, 0)
	return true
}

// progress is receiver's: those watches of its own have all up to that revision. The
// client is told if it has no others; if it has, the trunk is asked about them.
func (d *downstream) progress(h *pb.ResponseHeader, all []*feed) {
	d.mu.Lock()
	for _, w := range d.watches {
		if w.own != nil && slices.Contains(all, w.own) {
			w.upTo = h.GetRevision()
		}
	}
	known, shared := d.known()
	tell := d.asks && known && !shared
	for _, w := range d.watches {
		tell = tell && slices.Contains(all, w.own)
	}
	if tell {
		d.asks = false
		d.put(&pb.WatchResponse{Header: h, WatchId: -1}, 0)
	}
	d.mu.Unlock()
	if shared {
		d.trunk.wantProgress(d)
	}
}
