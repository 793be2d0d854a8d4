//go:build !linux

package osenv

import crand "crypto/rand"

// Secret returns random bytes.
func Secret(size int) []byte {
	secret := make([]byte, size)
	crand.Read(secret)
	return secret
}
