package arch

// floors is the import policy: a package may import packages of lower lines,
// never of its own line or of a higher one. A name stands for itself only; every
// package of the module must be on some line.
const floors = `
internal/id  internal/invariant  internal/defect
internal/env  internal/measure

internal/config  internal/tlsfiles  internal/telemetry  internal/credential
internal/env/osenv  internal/env/simenv

internal/raft/quorum
internal/raft/progress  internal/storage/engine/keys
internal/raft  internal/storage/wal  internal/storage/engine  internal/storage/etcddb  internal/storage/extsort  internal/storage/piles
internal/storage/engine/syncmark
internal/storage/engine/pebbledb  internal/storage/engine/memdb
internal/storage/raftlog  internal/state/command
internal/state/mvcc  internal/state/member  internal/state/lease  internal/state/auth  internal/state/alarm
internal/state  internal/watch
internal/backup

internal/host  internal/peer
internal/join/static  internal/join/srv  internal/join/registry
internal/server  internal/join
internal/rpc  internal/api/v3/concurrencypb
internal/tracing  internal/api/v3  internal/api/ops  internal/api/gateway  internal/api/metrics  internal/cli/print
internal/cli/exit  internal/proxy/grpcproxy
internal/proxy
internal/cli/ctl  internal/cli/utl  internal/cli/bench

internal/testkit/model  internal/testkit/rights  internal/testkit/certs  internal/testkit/ports  internal/testkit/wire
internal/testkit/linear  internal/testkit/history  internal/testkit/script  internal/testkit/arch
internal/testkit/cluster
embed  internal/sim
cmd/etcd  cmd/etcdctl  cmd/etcdutl  cmd/bench  cmd/simulate
`

// never are imports that the floors would allow and the house does not: the host
// does not know what the state is, and the two bodies of the world and of the
// engine are chosen by the assemblers alone.
var never = []struct{ who, what, because string }{
	{"internal/host", "internal/state", "the host drives any machine; embed and sim choose it"},
	{"internal/host", "internal/state/mvcc", "the host drives any machine"},
	{"internal/sim", "internal/storage/engine/pebbledb", "hash-checked worlds run on memdb (rule 28)"},
}

// assemblers may import env/osenv, env/simenv and the engine's bodies.
var (
	bodies = []string{
		"internal/env/osenv", "internal/env/simenv",
		"internal/storage/engine/pebbledb", "internal/storage/engine/memdb",
	}
	assemblers = []string{"embed", "internal/sim", "internal/testkit", "cmd"}
)

// worldly may use the clock, timers, randomness, os, net and the go statement;
// everything else is below the line of rule 31. A trailing slash means
// everything inside.
var worldly = []string{
	"embed", "cmd/", "internal/env/osenv", "internal/tlsfiles", "internal/peer", "internal/join",
	"internal/join/", "internal/rpc", "internal/tracing", "internal/api/", "internal/proxy", "internal/proxy/", "internal/cli/",
	"internal/testkit/", "internal/host/run.go",
}

// seeded may use a little of the outside world below the line: names of errors,
// types, a generator with a seed of its own.
var seeded = map[string][]string{
	"internal/env/simenv":              {"syscall"},
	"internal/env":                     {"time"},
	"internal/sim":                     {"math/rand/v2", "go statement", "syscall"},
	"internal/storage/engine/pebbledb": {"os"},
}

// outsideCalls are what rule 31 forbids below the line, by package.
var outsideCalls = map[string][]string{
	"time": {"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Since", "Until"},
}

// outsideImports are packages that rule 31 forbids below the line as a whole.
var outsideImports = []string{"math/rand", "math/rand/v2", "crypto/rand", "os", "os/exec", "net", "net/http", "syscall"}

const (
	maxFileLines     = 800
	maxFunctionLines = 70
	maxMethods       = 5
)

// longFunctions may exceed maxFunctionLines: tables and dispatch that would only
// be harder to read in pieces.
var longFunctions = map[string]string{}

// wideInterfaces may have more than maxMethods methods, with the reason.
var wideInterfaces = map[string]string{}
