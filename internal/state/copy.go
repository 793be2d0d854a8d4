package state

import (
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/invariant"
	"github.com/kvorum/kvorum/internal/raft"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Contents are the rows of a state that Freeze has saved, for whoever makes something
// else of them than chunks: they stay as they are until the saved state is closed,
// and any goroutine may read them.
func Contents(of Frozen) (group id.Group, rows engine.Reader) {
	f, ok := of.(*frozen)
	invariant.Check(ok, "a saved state that another package made")
	return f.group, f.from
}

// MarkOfLoaded is the row of the mark of a state that was put together from elsewhere,
// with the configuration that the log begins with.
func MarkOfLoaded(group id.Group, at raft.Position, conf raft.PlacedConf) (key, row []byte) {
	return keys.AppendMeta(nil, group, rowMark), appendMark(nil, at, &conf)
}
