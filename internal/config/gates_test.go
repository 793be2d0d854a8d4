package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestFeatureGates(t *testing.T) {
	for _, c := range []struct {
		text       string
		checkpoint bool
		priority   bool
		err        string
	}{
		{text: ""},
		{text: "LeaseCheckpoint=true", checkpoint: true},
		{text: " LeaseCheckpoint = true , LeaseCheckpointPersist=true", checkpoint: true},
		{text: "AllAlpha=true", checkpoint: true, priority: true},
		{text: "AllAlpha=true,AllBeta=false", checkpoint: true, priority: true},
		{text: "AllBeta=true"},
		{text: "AllAlpha=true,LeaseCheckpoint=false", priority: true},
		{text: "FastLeaseKeepAlive=false,AllBeta=true"},
		{text: "PriorityRequest=true,InitialCorruptCheck=true,CompactHashCheck=false", priority: true},
		{text: "LeaseCheckpoint", err: "missing bool value for LeaseCheckpoint"},
		{text: "LeaseCheckpoint=yes", err: `invalid value of LeaseCheckpoint=yes, err: strconv.ParseBool: parsing "yes": invalid syntax`},
		{text: "Unheard=true", err: "unrecognized feature gate: Unheard"},
	} {
		g, err := parseGates(c.text)
		if err != nil || c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%q: %v, want %q", c.text, err, c.err)
			}
			continue
		}
		if g.LeaseCheckpoint != c.checkpoint || g.PriorityRequest != c.priority {
			t.Errorf("%q: %+v", c.text, g)
		}
	}
	cfg, warnings := mustParse(t, []string{"--feature-gates=LeaseCheckpoint=true,PriorityRequest=true"}, nil)
	if !cfg.Gates.LeaseCheckpoint || !cfg.Gates.PriorityRequest || len(warnings) != 0 {
		t.Errorf("%+v, warnings %v", cfg.Gates, warnings)
	}
}

// A gate that changes nothing here is told of at the start, in whatever way it is given
// another value than its default; one that is left as it is, or has its effect, is not.
func TestGatesWithoutEffectAreTold(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil,
		"LeaseCheckpoint=true,PriorityRequest=true,SpaceBackPressure=true,SetMemberLocalAddr=true": nil,
		"FastLeaseKeepAlive=true,StopGRPCServiceOnDefrag=false,AllBeta=true,AllAlpha=false":        nil,
		"StopGRPCServiceOnDefrag=true":                      {"StopGRPCServiceOnDefrag=true"},
		"FastLeaseKeepAlive=false,LeaseCheckpointPersist=1": {"LeaseCheckpointPersist=true", "FastLeaseKeepAlive=false"},
		"AllBeta=false":                         {"TxnModeWriteWithSharedBuffer=false", "FastLeaseKeepAlive=false"},
		"AllBeta=false,FastLeaseKeepAlive=true": {"TxnModeWriteWithSharedBuffer=false"},
		"AllAlpha=true":                         {"StopGRPCServiceOnDefrag=true", "LeaseCheckpointPersist=true"},
	} {
		var told [3][]Warning
		_, told[0] = mustParse(t, []string{"--feature-gates=" + text}, nil)
		_, told[1] = mustParse(t, nil, []string{"ETCD_FEATURE_GATES=" + text})
		_, told[2] = mustRead(t, fmt.Sprintf("feature-gates: %q\n", text))
		for way, list := range told {
			var got []string
			for _, w := range list {
				if w.Msg != "feature gate is accepted and has no effect" {
					continue
				}
				name, value, reason := w.Attrs[0].Value.String(), w.Attrs[1].Value.String(), w.Attrs[2].Value.String()
				got = append(got, name+"="+value)
				if w.Level.String() != "INFO" || reason == "" || !strings.Contains(Page(), "| `"+name+"` |") || !strings.Contains(Page(), "*Accepted, no effect:* "+reason) {
					t.Errorf("%q in way %d: %v", text, way, w)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q in way %d: told of %q, want %q", text, way, got, want)
			}
		}
	}
}

// What the page says of a gate's default is what it is when nobody has set it.
func TestGatesAreByDefaultAsThePageSays(t *testing.T) {
	Default().Gates.Each(func(name, stage string, on bool) {
		if row := fmt.Sprintf("| `%s` | %s | %t |", name, strings.ToLower(stage), on); !strings.Contains(Page(), row) {
			t.Errorf("the page has no %s", row)
		}
	})
}
