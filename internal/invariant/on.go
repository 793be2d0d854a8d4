//go:build invariants || race

package invariant

// Dear says whether checks that cost more than a comparison run: they do in
// race builds and with the build tag "invariants".
const Dear = true
