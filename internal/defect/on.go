//go:build defects

package defect

// Planted says whether this binary can carry defects.
const Planted = true

var active Defect

// Plant switches one defect on and every other off. It belongs to tests that
// run one world at a time.
func Plant(d Defect) { active = d }

// On says whether d is switched on.
func On(d Defect) bool { return active == d }
