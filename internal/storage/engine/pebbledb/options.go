package pebbledb

import (
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"

	"github.com/kvorum/kvorum/internal/env"
	"github.com/kvorum/kvorum/internal/storage/engine"
	"github.com/kvorum/kvorum/internal/storage/engine/keys"
)

// Defaults of Options: the store's part of the default budget of 160 MB (rule
// 35).
const (
	DefaultMemtableBytes = 32 << 20
	DefaultCacheBytes    = 96 << 20
	DefaultMaxIterators  = 1024
)

const (
	// memtables may be in memory at once: one that fills, one that is flushed.
	memtables = 2
	// stopSublevels of level 0 make writers wait: each costs every read a table.
	stopSublevels = 12
	// looksPerMemtable is how often commits look at the state of the store.
	looksPerMemtable = 8
	// hurriedDebt is how many bytes compactions may be behind before they hurry.
	hurriedDebt = 256 << 20
	// bloomBits per prefix: about 1 % of the tables that lack a key are read.
	bloomBits = 10
	// format is pinned: it decides what an older build can still open. V6 is the
	// first whose table footers have a checksum, and the last that needs no
	// value separation.
	format = pebble.FormatTableFormatV6
)

// Options say where the store lives and how much memory it may take.
type Options struct {
	FS  env.FS
	Dir string
	// MemtableBytes is the size of one of the two memtables (default 32 MB).
	MemtableBytes int
	// CacheBytes is the size of the block cache (default 96 MB).
	CacheBytes int64
	// MaxIterators is how many may be open at once (default 1024, rule 23).
	MaxIterators int
	// Clock, if set, measures commits.
	Clock env.Clock
	// Misuse, if set, is told when Pebble sees itself used wrongly: tests fail
	// there. Trouble is told what goes wrong in the background, and when a commit
	// has to wait. Both are called on Pebble's goroutines, at times under its
	// locks: they must not call the store.
	Misuse, Trouble func(text string)
	// Damaged, if set, is told when a read, or a flush or compaction, finds a block
	// damaged, and in which file. It is called like Trouble.
	Damaged func(*engine.CorruptionError)
	// Pause, if set, is called by flushes and compactions that are in no hurry and
	// returns after the time that they shall rest (time.Sleep).
	Pause func(time.Duration)
	// Failed, if set, is told once of the refused write or sync after which nothing
	// is written any more. While the store is being opened it is the only word:
	// Pebble tries its first flush again for ever, and Open may never return.
	Failed func(error)
}

func (o Options) withDefaults() Options {
	if o.MemtableBytes <= 0 {
		o.MemtableBytes = DefaultMemtableBytes
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.MaxIterators <= 0 {
		o.MaxIterators = DefaultMaxIterators
	}
	if o.Misuse == nil {
		o.Misuse = func(string) {}
	}
	if o.Trouble == nil {
		o.Trouble = func(string) {}
	}
	if o.Damaged == nil {
		o.Damaged = func(*engine.CorruptionError) {}
	}
	return o
}

// compactionsAtOnce leaves half of the processors to those who wait for an answer:
// a goroutine that compacts keeps its processor for 10 ms at a time, and a put needs
// one several times on its way.
func compactionsAtOnce() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// pebbleOptions are those of the store and, but for what a reader does not need,
// of a checkpoint.
func (db *DB) pebbleOptions() *pebble.Options {
	// Pebble counts memtables against the cache; the cache proper shall have its
	// size beside two full ones.
	cacheBytes := db.opts.CacheBytes + memtables*int64(db.opts.MemtableBytes)
	o := &pebble.Options{
		FS:                 db.disk,
		Comparer:           comparer,
		FormatMajorVersion: format,
		DisableWAL:         true,
		Logger:             logger{db},
		EventListener:      db.listener(),
		CacheSize:          cacheBytes,
		MemTableSize:       uint64(db.opts.MemtableBytes),

		// Pebble must never make a commit wait: on a disk that has failed it would
		// wait for ever. DB.makeRoom does the waiting.
		MemTableStopWritesThreshold: 1 << 10,
		L0StopWritesThreshold:       1 << 20,
		// Compacting level 0 at 2 sublevels took 8.9 us of CPU per put (256 B, with
		// its history row, all background work counted), at 4 it took 7.4, at 8 no
		// less; each sublevel slows every read.
		L0CompactionThreshold:      4,
		CompactionConcurrencyRange: func() (lower, upper int) { return 1, compactionsAtOnce() },
		LBaseMaxBytes:              64 << 20,
		MaxManifestFileSize:        8 << 20,
		BytesPerSync:               smoothBytes,
		MaxOpenFiles:               512,
	}
	// Only compactions read a table as a whole (disk.Open tells them by that).
	o.Local.ReadaheadConfig = &pebble.ReadaheadConfig{}
	o.Local.ReadaheadConfig.Set(objstorageprovider.FadviseSequential, objstorageprovider.SysReadahead)
	o.Experimental.FileCacheShards = 2
	// Without Pebble's log an install that waits among the memtables would not be
	// durable when it returns.
	o.Experimental.DisableIngestAsFlushable = func() bool { return true }
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
		o.Levels[i].BlockSize = 16 << 10
	}
	// A table ends where the history begins, and where it ends: its rows come in the
	// order of their keys, and beside keys that come in any order each compaction of
	// level 0 would merge them anew (docs/decisions/0049).
	o.Experimental.SpanPolicyFunc = func(start []byte) (pebble.SpanPolicy, []byte, error) {
		return pebble.SpanPolicy{}, keys.AppendTableEnd(nil, start), nil
	}
	o.EnsureDefaults()
	return o
}
