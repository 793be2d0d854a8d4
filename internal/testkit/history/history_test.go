package history

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"testing"
)

// number reads a number from the environment.
func number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// worth is what any 500 histories must have met to be worth their time, beside
// one call of each kind: the names are Tally's.
var worth = []string{
	"*command.CompactRequest: etcdserver: mvcc: required revision has been compacted",
	"*command.CompactRequest: etcdserver: mvcc: required revision is a future revision",
	"*command.DeleteRangeRequest: etcdserver: key is not provided",
	"*command.PutRequest: etcdserver: key is not provided",
	"*command.PutRequest: etcdserver: key not found",
	"*command.PutRequest: etcdserver: lease is provided",
	"*command.PutRequest: etcdserver: requested lease not found",
	"*command.PutRequest: etcdserver: value is provided",
	"*command.RangeRequest: etcdserver: key is not provided",
	"*command.RangeRequest: etcdserver: mvcc: required revision has been compacted",
	"*command.RangeRequest: etcdserver: mvcc: required revision is a future revision",
	"*command.TxnRequest: etcdserver: duplicate key given in txn request",
	"*command.TxnRequest: etcdserver: key is not provided",
	"*command.TxnRequest: etcdserver: key not found",
	"*command.TxnRequest: etcdserver: lease is provided",
	"*command.TxnRequest: etcdserver: mvcc: required revision has been compacted",
	"*command.TxnRequest: etcdserver: mvcc: required revision is a future revision",
	"*command.TxnRequest: etcdserver: requested lease not found",
	"*command.TxnRequest: etcdserver: too many operations in txn request",
	"*command.TxnRequest: etcdserver: value is provided",
	"*command.LeaseGrant: etcdserver: lease already exists", "*command.LeaseRevoke: etcdserver: requested lease not found",
	"grant", "revocation", "put with a lease",
	"put that keeps the value", "put that keeps the lease", "put over another",
	"deletion of many", "deletion of nothing", "deletion with pairs", "deletion of what the same txn has put",
	"physical compaction",
	"range of the past", "range at the compact revision", "range filtered", "range with keys only",
	"range with the count only", "range serializable", "range cut by a limit", "range cut by a limit, sorted",
	"range of several by 0 in order 2", "range of several by 1 in order 1", "range of several by 2 in order 2",
	"range of several by 3 in order 1", "range of several by 4 in order 2", "range of several by 4 in order 0",
	"range in a txn of the past", "range in a txn cut by a limit", "range that sees its txn's writes",
	"txn that succeeds by its compares", "txn that fails", "txn that compares a range", "txn of more than 100 operations",
	"read-only txn", "nested txn that fails", "nested txn that compares a range",
	"txn that compares target 0 by 0", "txn that compares target 1 by 3", "txn that compares target 2 by 1",
	"txn that compares target 3 by 3", "txn that compares target 4 by 2", "txn that compares target 4 by 7",
}

// worthOfOurs is what a server of 3.7 meets besides.
var worthOfOurs = append([]string{
	"range in pieces", "range in three pieces and more", "range cut by a limit before it is sorted",
	"*command.RangeRequest: RangeStream does not support custom sort orders",
	"*command.RangeRequest: RangeStream does not support revision filters",
	"*command.RangeRequest: etcdserver: invalid sort option", "*command.TxnRequest: etcdserver: invalid sort option",
	"txn that compares target 7 by 0",
}, worth...)

// judge says what the histories have not met.
func (t Tally) judge(to testing.TB, worth []string) {
	to.Helper()
	for _, what := range worth {
		if t[what] == 0 {
			to.Errorf("no history has met: %s", what)
		}
	}
}

// TestHistoriesAnswerAsTheOracle plays 10,000 histories of every call of the
// key-value service through the services of gRPC, with clean stops, kills and
// power losses between calls and within them. KVORUM_HISTORY_SEED plays one
// history alone, KVORUM_HISTORIES another number of them.
func TestHistoriesAnswerAsTheOracle(t *testing.T) {
	t.Parallel()
	histories, shards := number(t, "KVORUM_HISTORIES", 10_000), 4
	if testing.Short() {
		histories = number(t, "KVORUM_HISTORIES", 500)
	}
	if alone := number(t, "KVORUM_HISTORY_SEED", -1); alone >= 0 {
		p := newStackPlayer(t, 0)
		check(t, p.Play(uint64(alone), true))
		return
	}
	// Goroutines, not parallel tests: a shard waits more than it works, for removals
	// and for its server's goroutines.
	players, errs := make([]*Player, shards), make([]error, shards)
	var running sync.WaitGroup
	for shard := range shards {
		players[shard] = newStackPlayer(t, shard)
		running.Go(func() {
			for seed := shard; seed < histories && errs[shard] == nil; seed += shards {
				errs[shard] = players[shard].Play(uint64(seed), seed%40 < shards)
			}
		})
	}
	running.Wait()
	check(t, errors.Join(errs...))
	all, calls, restarts := Tally{}, 0, 0
	for _, p := range players {
		for what, n := range p.Tally {
			all[what] += n
		}
		calls, restarts = calls+p.Calls, restarts+p.Restarted
	}
	t.Logf("%d histories, %d calls, %d restarts", histories, calls, restarts)
	if histories >= 500 {
		all.judge(t, worthOfOurs)
	}
}

func newStackPlayer(t *testing.T, shard int) *Player {
	s := &stack{seed: uint64(shard)}
	t.Cleanup(func() { check(t, s.close()) })
	return &Player{
		Server: s, Streams: true, Hashes: true,
		Restarts: []Restart{Clean, Kill, PowerLoss, PowerLoss}, RestartOneIn: 4,
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
