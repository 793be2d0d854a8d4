package join

import (
	"os"
	"strings"
	"testing"
)

func TestTheFormatPageShowsARealFile(t *testing.T) {
	page, err := os.ReadFile("../../docs/format/identity.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```\n"+format(me)+"```") {
		t.Errorf("docs/format/identity.md should show\n%s", format(me))
	}
}
