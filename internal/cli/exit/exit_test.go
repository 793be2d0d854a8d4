package exit

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kvorum/kvorum/internal/cli/print"
)

// What a program says last, and the code that it ends with.
func TestTell(t *testing.T) {
	for _, tc := range []struct {
		err  error
		says string
		code int
	}{
		{nil, "", 0},
		{errors.New("no room"), "Error: no room\n", 1},
		{With(CodeInterrupted, errors.New("cut")), "Error: cut\n", 5},
		{BadArgs("%d keys", 3), "Error: 3 keys\n", 128},
		{BadInput("odd"), "Error: odd\n", 3},
		{BadFeature("none"), "Error: none\n", 4},
		{fmt.Errorf("twice: %w", BadArgs("wrong")), "Error: twice: wrong\n", 128},
		{fmt.Errorf("form: %w", print.ErrFormat), "Error: form: " + print.ErrFormat.Error() + "\n", 4},
		{ErrReported, "", 1},
		{With(CodeBadConnection, ErrReported), "", 2},
	} {
		var said strings.Builder
		if code := Tell(&said, tc.err); code != tc.code || said.String() != tc.says {
			t.Errorf("%v: code %d, %q; want %d, %q", tc.err, code, said.String(), tc.code, tc.says)
		}
	}
	why := errors.New("why")
	if !errors.Is(With(CodeBadInput, why), why) {
		t.Error("the error behind the code is lost")
	}
}
