package ctl

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// readLine reads a line, and nothing of what follows it.
func readLine(in io.Reader) (string, error) {
	var line []byte
	for c := make([]byte, 1); ; {
		n, err := in.Read(c)
		if n == 1 {
			if c[0] == '\n' {
				break
			}
			line = append(line, c[0])
		}
		if err != nil && (len(line) == 0 || !errors.Is(err, io.EOF)) {
			return "", fmt.Errorf("no password given: %w", err)
		}
		if err != nil {
			break
		}
	}
	return strings.TrimRight(string(line), "\r"), nil
}
