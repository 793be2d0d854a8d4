package command_test

import (
	"errors"
	"testing"

	. "github.com/kvorum/kvorum/internal/state/command"
)

// The target of a downgrade is X.Y, or all of a version of which X.Y counts.
func TestTargetsOfDowngrades(t *testing.T) {
	for text, want := range map[string]Version{
		"3.6": {3, 6}, "3.6.0": {3, 6}, "3.6.17": {3, 6}, "3.06": {3, 6}, "3.6.0-rc.1": {3, 6}, "3.6.0+git": {3, 6}, "3.6.0-rc.1+git-2.x": {3, 6},
		"0.0": {}, "255.255": {255, 255},
	} {
		if got, err := ParseTarget(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]error{
		"": ErrDowngradeFormat, "3": ErrDowngradeFormat, "v3.6": ErrDowngradeFormat, "3.6.": ErrDowngradeFormat, "3.6.x": ErrDowngradeFormat,
		".3.6": ErrDowngradeFormat, "3..6": ErrDowngradeFormat, "3.6.0.1": ErrDowngradeFormat, " 3.6": ErrDowngradeFormat, "3.-6": ErrDowngradeFormat,
		"3.6-rc.1": ErrDowngradeFormat, "3.6+git": ErrDowngradeFormat, "3.6.99999999999999999999": ErrDowngradeFormat,
		"3.262": ErrDowngradeTarget, "259.6": ErrDowngradeTarget,
	} {
		if got, err := ParseTarget(text); !errors.Is(err, want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}

// A version without a patch, as answers to downgrades have it.
func TestShortVersions(t *testing.T) {
	if got := (Version{3, 7}).Short() + " " + (Version{}).Short() + "."; got != "3.7 ." {
		t.Error(got)
	}
}
