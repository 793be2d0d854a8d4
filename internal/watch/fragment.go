package watch

import "encoding/binary"

// piece takes the next piece off rest: as many events as stay below the size of a
// fragment, and at least one (spec 3.4). The caller holds mu.
func (s *Stream) piece() Response {
	r := s.rest
	at := firstEvent(r.Events)
	for at < len(r.Events) {
		next := at + firstEvent(r.Events[at:])
		if next >= s.hub.opts.FragmentBytes {
			break
		}
		at = next
	}
	if at == len(r.Events) {
		s.rest = Response{}
		return r
	}
	s.rest.Events = r.Events[at:]
	r.Events, r.Fragment = r.Events[:at:at], true
	return r
}

// firstEvent is the length of the first event with its tag and length.
func firstEvent(events []byte) int {
	size, n := binary.Uvarint(events[1:])
	return 1 + n + int(size)
}
