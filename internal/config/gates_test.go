package config

import "testing"

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
