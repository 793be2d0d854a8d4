package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Gates are the feature gates of etcd 3.7 that change something here.
type Gates struct {
	// LeaseCheckpoint lets the leader tell now and then what leases have left, so
	// that the next one does not give them all of their time again.
	LeaseCheckpoint bool
	// idle are those that were named and change nothing yet.
	idle []string
}

// gates are the names, and whether AllAlpha (α) means them. What is needless here
// is done in any case: checkpoints are always kept, renewals never wait for apply.
var gates = []struct {
	name            string
	alpha, needless bool
	field           func(*Gates) *bool
}{
	{"StopGRPCServiceOnDefrag", true, false, nil},
	{"InitialCorruptCheck", true, false, nil},
	{"CompactHashCheck", true, false, nil},
	{"TxnModeWriteWithSharedBuffer", false, true, nil},
	{"LeaseCheckpoint", true, false, func(g *Gates) *bool { return &g.LeaseCheckpoint }},
	{"LeaseCheckpointPersist", true, true, nil},
	{"SetMemberLocalAddr", true, false, nil},
	{"FastLeaseKeepAlive", false, true, nil},
	{"PriorityRequest", true, false, nil},
}

// Names that stand for all gates of a kind.
const (
	allAlpha = "AllAlpha"
	allBeta  = "AllBeta"
)

// parseGates reads a list of Name=true or Name=false, separated by commas.
func parseGates(text string) (g Gates, err error) {
	given := map[string]bool{}
	for _, pair := range strings.Split(text, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		name, value, whole := strings.Cut(pair, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !whole {
			return Gates{}, fmt.Errorf("missing bool value for %s", name)
		}
		if given[name], err = strconv.ParseBool(value); err != nil {
			return Gates{}, fmt.Errorf("invalid value of %s=%s, err: %w", name, value, err)
		}
	}
	known := []string{allAlpha, allBeta}
	for _, gate := range gates {
		known = append(known, gate.name)
		on, named := given[gate.name]
		if !named && gate.alpha {
			on = given[allAlpha]
		}
		switch {
		case gate.field != nil:
			*gate.field(&g) = on
		case named && !gate.needless:
			g.idle = append(g.idle, gate.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(known, name) {
			return Gates{}, fmt.Errorf("unrecognized feature gate: %s", name)
		}
	}
	return g, nil
}
