package etcddb

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// What is had of a file is told in a line, and read back; anything else is nothing.
func TestAPartIsTold(t *testing.T) {
	file := bytes.Repeat([]byte("0123456789abcdef"), 1024)
	p, err := ReadPart(bytes.NewReader(file), 12288)
	if err != nil || p.Span() != "8192-12288" || ParsePart(p.String()) != p {
		t.Errorf("%v (%v) is read as %v", p, err, ParsePart(p.String()))
	}
	file[3]++ // in the head
	if again, _ := ReadPart(bytes.NewReader(file), 12288); again != p {
		t.Error("the head is in the sum")
	}
	file[12287]++
	if again, _ := ReadPart(bytes.NewReader(file), 12288); again == p {
		t.Error("the last byte is not in the sum")
	}
	if _, err := ReadPart(bytes.NewReader(file), 20000); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a part that is not there: %v", err)
	}
	if text := (Part{}).String(); text != HaveNothing || ParsePart(text) != (Part{}) {
		t.Errorf("nothing is %q", text)
	}
	good := p.String()
	for _, text := range []string{"", " ", "8192-8192 " + good[11:], "4096" + good[4:], "8192-012288" + good[10:], good[:len(good)-1],
		good + "0", good + " ", strings.ToUpper(good), "8192--5 " + good[11:], "-" + good, good[:10]} {
		if got := ParsePart(text); got != (Part{}) {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func FuzzParsePart(f *testing.F) {
	p, _ := ReadPart(bytes.NewReader(make([]byte, 20000)), 12288)
	for _, text := range []string{p.String(), HaveNothing, "8192-9223372036854775808 00", "8192-9000 "} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p := ParsePart(text); p != (Part{}) && (p.String() != text || p.End <= HeadBytes) {
			t.Errorf("%q is %v", text, p)
		}
	})
}
