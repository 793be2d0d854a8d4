package embed

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"google.golang.org/grpc"

	kvhistory "github.com/kvorum/kvorum/internal/testkit/history"
)

// player is a real member that histories are played against: over TCP, on Pebble.
type player struct {
	t      *testing.T
	dir    string
	dirs   int
	member *member
}

func (p *player) Conn() grpc.ClientConnInterface { return p.member.conn }

func (p *player) Renew() error {
	p.dirs++
	return p.Restart(kvhistory.Clean)
}

func (p *player) Restart(kvhistory.Restart) error {
	if p.member != nil {
		p.member.stop()
	}
	p.member = startMember(p.t, filepath.Join(p.dir, strconv.Itoa(p.dirs)))
	return nil
}

// Random histories of every call, over TCP and on Pebble, answer as the oracle
// does, clean stops between the calls included. The longer run of the same is in
// internal/testkit/history; seeds here are others than there.
func TestHistoriesOverTCPAnswerAsTheOracle(t *testing.T) {
	histories := uint64(300)
	if testing.Short() {
		histories = 40
	}
	dir := t.TempDir()
	if memory, err := os.MkdirTemp("/dev/shm", "embed"); err == nil { // there syncs take no time
		dir = memory
		t.Cleanup(func() { os.RemoveAll(memory) })
	}
	p := &kvhistory.Player{
		Server: &player{t: t, dir: dir}, Streams: true, Hashes: true,
		Restarts: []kvhistory.Restart{kvhistory.Clean}, RestartOneIn: 15,
	}
	for seed := range histories {
		if err := p.Play(1_000_000+seed, seed%100 == 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d histories, %d calls, %d restarts", histories, p.Calls, p.Restarted)
	if p.Tally["range in pieces"] == 0 || p.Tally["nested txn"] == 0 || p.Restarted == 0 {
		t.Errorf("the histories are hardly worth their time: %v", p.Tally)
	}
}
