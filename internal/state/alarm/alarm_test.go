package alarm

import (
	"testing"

	"github.com/kvorum/kvorum/internal/state/command"
)

// A row is read as it was written, and in no other form.
func TestRowsHaveOneForm(t *testing.T) {
	for _, a := range []command.Alarm{{Type: command.AlarmNoSpace}, {Member: 1<<64 - 1, Type: command.AlarmCorrupt}, {Member: 300, Type: -1 << 31}} {
		row := encode(nil, a)
		if got, ok := decode(row); !ok || got != a {
			t.Errorf("%x: %v, %v", row, got, ok)
		}
		for cut := range row {
			if got, ok := decode(row[:cut]); ok {
				t.Errorf("%x: %v", row[:cut], got)
			}
		}
		if _, ok := decode(append(row, 0)); ok {
			t.Errorf("%x 00", row)
		}
	}
	for _, row := range [][]byte{{1, 0x80, 0, 2}, {1, 1, 0}, {2, 1, 2}, {1, 1, 0x82, 0x80, 0x80, 0x80, 0x80, 1}} {
		if a, ok := decode(row); ok {
			t.Errorf("%x: %v", row, a)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(nil, command.Alarm{Member: 7, Type: command.AlarmNoSpace}))
	f.Add([]byte{1, 0x80, 0, 2})
	f.Fuzz(func(t *testing.T, row []byte) {
		if a, ok := decode(row); ok && string(encode(nil, a)) != string(row) {
			t.Errorf("%x is read as %v", row, a)
		}
	})
}
