package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Gates are the feature gates that change something here.
type Gates struct {
	// LeaseCheckpoint lets the leader tell now and then what leases have left, so
	// that the next one does not give them all of their time again.
	LeaseCheckpoint bool
	// InitialCorruptCheck compares the data of a member that starts with its peers',
	// CompactHashCheck has the leader compare the hashes of compactions.
	InitialCorruptCheck, CompactHashCheck bool
	// SetMemberLocalAddr connects to peers from the address that is advertised.
	SetMemberLocalAddr bool
	// SpaceBackPressure slows growth before the quota is reached, and lets the alarm
	// end by itself.
	SpaceBackPressure bool
	// PriorityRequest lets leases end when there are too many requests for others.
	PriorityRequest bool
}

// gate is one name. alpha says that AllAlpha means it, state what it does here.
type gate struct {
	name  string
	alpha bool
	state state
	field func(*Gates) *bool
	note  string
}

// gates are those of etcd 3.7 (spec/server-ops.md 1.4), and one of ours.
var gates = []gate{
	{"StopGRPCServiceOnDefrag", true, accepted, nil, "Defragment has nothing to do and stops nobody."},
	{"InitialCorruptCheck", true, ready, func(g *Gates) *bool { return &g.InitialCorruptCheck },
		"Compare the data of a member that starts with that of its peers."},
	{"CompactHashCheck", true, ready, func(g *Gates) *bool { return &g.CompactHashCheck },
		"Have the leader compare the hashes of compactions."},
	{"TxnModeWriteWithSharedBuffer", false, accepted, nil, "Txns read from a view that nobody copies, in any case."},
	{"LeaseCheckpoint", true, ready, func(g *Gates) *bool { return &g.LeaseCheckpoint },
		"Tell the other members every five minutes what long leases have left."},
	{"LeaseCheckpointPersist", true, accepted, nil, "What is told is kept, in any case."},
	{"SetMemberLocalAddr", true, ready, func(g *Gates) *bool { return &g.SetMemberLocalAddr },
		"Connect to peers from the address that --initial-advertise-peer-urls names."},
	{"FastLeaseKeepAlive", false, accepted, nil, "A renewal never waits for what is being applied, in any case."},
	{"PriorityRequest", true, ready, func(g *Gates) *bool { return &g.PriorityRequest },
		"Take twice as many requests if they end leases, when there are too many for others."},
	{"SpaceBackPressure", false, ready, func(g *Gates) *bool { return &g.SpaceBackPressure },
		"Kvorum's own: slow growth down from 90 % of the quota on, and end the NOSPACE alarm below 85 %."},
}

// Each tells every gate of etcd 3.7, its stage, ALPHA or BETA, and whether it is on. One
// that changes nothing here is on as etcd has it by default.
func (g Gates) Each(tell func(name, stage string, on bool)) {
	for i := range gates {
		stage, on := "BETA", true
		if gates[i].alpha {
			stage, on = "ALPHA", false
		}
		if gates[i].field != nil {
			on = *gates[i].field(&g)
		}
		tell(gates[i].name, stage, on)
	}
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
		if gate.field != nil {
			*gate.field(&g) = on
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(known, name) {
			return Gates{}, fmt.Errorf("unrecognized feature gate: %s", name)
		}
	}
	return g, nil
}
