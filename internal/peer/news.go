package peer

import (
	"errors"
	"net"
	"sync"
	"time"
)

// news says what is worth a line in the log: what was not told for a while, nor
// since a clear. Attempts are repeated every second, lines are not.
type news struct {
	mu   sync.Mutex
	told map[string]time.Time
}

const (
	staleNews = 10 * time.Minute
	maxNews   = 256
)

func (n *news) is(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if at, ok := n.told[text]; ok && now.Sub(at) < staleNews {
		return false
	}
	if n.told == nil || len(n.told) >= maxNews {
		n.told = map[string]time.Time{}
	}
	n.told[text] = now
	return true
}

// clear makes everything news again.
func (n *news) clear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = nil
}

// plain is an error's text without the addresses of this very connection: a port
// that changes with every attempt would make it news each time.
func plain(err error) string {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op == "dial" || op.Err == nil {
		return err.Error()
	}
	return op.Op + ": " + op.Err.Error()
}
