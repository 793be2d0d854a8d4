package lease

import (
	"encoding/binary"

	"github.com/kvorum/kvorum/internal/state/command"
)

// The values of the rows; docs/format/engine-rows.md describes them. Each decoder
// accepts exactly what its encoder writes.

// rowBirths names the row that counts the leases ever granted.
const rowBirths = "leases"

const rowFormat = 1

func appendFacts(dst []byte, f facts) []byte {
	dst = binary.AppendUvarint(append(dst, rowFormat), uint64(f.birth))
	dst = binary.AppendUvarint(dst, uint64(f.ttl))
	return binary.AppendUvarint(dst, uint64(f.remaining))
}

func decodeFacts(row []byte) (facts, error) {
	var n [3]uint64
	if !decodeNumbers(row, n[:]) || n[0] == 0 || n[1] == 0 || n[1] > command.MaxLeaseTTL || n[2] > n[1] {
		return facts{}, ErrDamaged
	}
	return facts{birth: command.LeaseBirth(n[0]), ttl: int64(n[1]), remaining: int64(n[2])}, nil
}

func appendBirths(dst []byte, births command.LeaseBirth) []byte {
	return binary.AppendUvarint(append(dst, rowFormat), uint64(births))
}

func decodeBirths(row []byte) (command.LeaseBirth, error) {
	var n [1]uint64
	if !decodeNumbers(row, n[:]) || n[0] == 0 {
		return 0, ErrDamaged
	}
	return command.LeaseBirth(n[0]), nil
}

// decodeNumbers reads a row of so many numbers, each in its shortest form.
func decodeNumbers(row []byte, numbers []uint64) bool {
	if len(row) == 0 || row[0] != rowFormat {
		return false
	}
	row = row[1:]
	for i := range numbers {
		v, n := binary.Uvarint(row)
		if n <= 0 || n > 1 && row[n-1] == 0 {
			return false
		}
		numbers[i], row = v, row[n:]
	}
	return len(row) == 0
}
