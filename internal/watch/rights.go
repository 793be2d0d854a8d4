package watch

import "github.com/kvorum/kvorum/internal/defect"

// Watches are judged when they are created and again whenever rights have changed:
// before anything more is sent for one, since the client must not be shown what came
// after the change, and at once for those that nothing is sent for, so that their
// clients are told. etcd judges them once.

func (h *Hub) rights() any {
	if h.opts.Rights == nil {
		return nil
	}
	return h.opts.Rights()
}

// RightsChanged has all watches judged again, a stream at a time. It never waits.
func (h *Hub) RightsChanged() {
	if h.live.Load() == 0 {
		return
	}
	var list []*Stream
	begun := false
	h.opts.Tasks.Go("watch-rights", func() (done bool) {
		if !begun {
			begun = true
			h.mu.Lock()
			list = append(list, h.streams...)
			h.mu.Unlock()
		}
		if len(list) == 0 {
			return true
		}
		list[0].judge()
		list = list[1:]
		return len(list) == 0
	})
}

// judge ends the watches of the stream that are not permitted any more.
func (s *Stream) judge() {
	s.mu.Lock()
	all := append([]*Subscription(nil), s.order...)
	s.mu.Unlock()
	for _, sub := range all {
		s.hub.refuse(s, sub)
	}
}

// refuse ends a watch that is not permitted any more, and says whether it did. No lock
// is held.
func (h *Hub) refuse(s *Stream, sub *Subscription) bool {
	if sub.permit == nil || defect.On(defect.WatchOutlivesGrant) {
		return false
	}
	rights := h.rights() // before they are asked for
	s.mu.Lock()
	same := sub.rights == rights
	s.mu.Unlock()
	if same {
		return false
	}
	refused := sub.permit()
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed || sub.ended:
		return true
	case refused == nil:
		sub.rights = rights
		return false
	}
	s.end(sub, refused)
	return true
}
