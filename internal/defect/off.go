//go:build !defects

package defect

// Planted says whether this binary can carry defects.
const Planted = false

// On is false: this binary carries no defects.
func On(Defect) bool { return false }
