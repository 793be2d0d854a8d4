package config

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Gates are the feature gates.
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
	// Idle are those, as Name=true or Name=false, that change nothing here and were set
	// to another value than their default.
	Idle []string
}

// gate is one name. alpha says that AllAlpha means it and that it is off by default,
// where AllBeta and on hold for others. One without a field changes nothing here; its note
// says why.
type gate struct {
	name  string
	alpha bool
	field func(*Gates) *bool
	note  string
}

// gates are those of etcd 3.7 (spec/server-ops.md 1.4), and one of ours.
var gates = []gate{
	{"StopGRPCServiceOnDefrag", true, nil, "Defragment has nothing to do and stops nobody."},
	{"InitialCorruptCheck", true, func(g *Gates) *bool { return &g.InitialCorruptCheck },
		"Compare the data of a member that starts with that of its peers."},
	{"CompactHashCheck", true, func(g *Gates) *bool { return &g.CompactHashCheck },
		"Have the leader compare the hashes of compactions."},
	{"TxnModeWriteWithSharedBuffer", false, nil, "Txns read from a view that nobody copies, in any case."},
	{"LeaseCheckpoint", true, func(g *Gates) *bool { return &g.LeaseCheckpoint },
		"Tell the other members every five minutes what long leases have left."},
	{"LeaseCheckpointPersist", true, nil, "What is told is kept, in any case."},
	{"SetMemberLocalAddr", true, func(g *Gates) *bool { return &g.SetMemberLocalAddr },
		"Connect to peers from the address that --initial-advertise-peer-urls names."},
	{"FastLeaseKeepAlive", false, nil, "A renewal never waits for what is being applied, in any case."},
	{"PriorityRequest", true, func(g *Gates) *bool { return &g.PriorityRequest },
		"Take twice as many requests if they end leases, when there are too many for others."},
	{"SpaceBackPressure", true, func(g *Gates) *bool { return &g.SpaceBackPressure },
		"Kvorum's own: slow growth down from 90 % of the quota on, and end the NOSPACE alarm below 85 %."},
}

// Each tells every gate of etcd 3.7, its stage, ALPHA or BETA, and whether it is on. One
// that changes nothing here is on as etcd has it by default.
func (g Gates) Each(tell func(name, stage string, on bool)) {
	for i := range gates {
		stage, on := "BETA", gates[i].standard()
		if gates[i].alpha {
			stage = "ALPHA"
		}
		if gates[i].field != nil {
			on = *gates[i].field(&g)
		}
		tell(gates[i].name, stage, on)
	}
}

// standard says whether a gate is on unless it is said otherwise.
func (g *gate) standard() bool { return !g.alpha }

// kind names the gates that AllAlpha or AllBeta means.
func (g *gate) kind() string {
	if g.alpha {
		return allAlpha
	}
	return allBeta
}

// chosen is what a list of pairs says of a gate: by its name, else by its kind, else
// what it is by default.
func (g *gate) chosen(given map[string]bool) bool {
	for _, name := range []string{g.name, g.kind()} {
		if on, is := given[name]; is {
			return on
		}
	}
	return g.standard()
}

// Names that stand for all gates of a kind.
const (
	allAlpha = "AllAlpha"
	allBeta  = "AllBeta"
)

// gatesHelp is a line of the help for each gate.
func gatesHelp() string {
	var b strings.Builder
	for i := range gates {
		g := &gates[i]
		text := g.note
		if g.field == nil {
			text = "Accepted, no effect: " + text
		}
		fmt.Fprintf(&b, "    %s=%t (%s): %s\n", g.name, g.standard(), g.kind(), text)
	}
	return b.String()
}

// tellIdle tells of gates that somebody wanted something of, in vain.
func (p *parser) tellIdle() {
	for i := range gates {
		for _, pair := range p.config.Gates.Idle {
			if name, value, _ := strings.Cut(pair, "="); name == gates[i].name {
				p.warn(slog.LevelInfo, "feature gate is accepted and has no effect", slog.String("gate", name),
					slog.String("value", value), slog.String("reason", gates[i].note))
			}
		}
	}
}

// readGates reads a list of Name=true or Name=false, separated by commas.
func readGates(text string) (given map[string]bool, err error) {
	given = map[string]bool{}
	for _, pair := range strings.Split(text, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		name, value, whole := strings.Cut(pair, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !whole {
			return nil, fmt.Errorf("missing bool value for %s", name)
		}
		if given[name], err = strconv.ParseBool(value); err != nil {
			return nil, fmt.Errorf("invalid value of %s=%s, err: %w", name, value, err)
		}
	}
	known := []string{allAlpha, allBeta}
	for i := range gates {
		known = append(known, gates[i].name)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unrecognized feature gate: %s", name)
		}
	}
	return given, nil
}

// parseGates reads what --feature-gates says.
func parseGates(text string) (g Gates, err error) {
	given, err := readGates(text)
	if err != nil {
		return Gates{}, err
	}
	for i := range gates {
		if one := &gates[i]; one.field != nil {
			*one.field(&g) = one.chosen(given)
		} else if on := one.chosen(given); on != one.standard() {
			g.Idle = append(g.Idle, one.name+"="+strconv.FormatBool(on))
		}
	}
	return g, nil
}
