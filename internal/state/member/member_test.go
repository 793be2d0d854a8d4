package member

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/kvorum/kvorum/internal/state/command"
)

func TestFactsComeBack(t *testing.T) {
	for _, f := range []Facts{
		{},
		{ID: 1 << 63, Name: "infra0", PeerURLs: []string{"http://a:2380", ""}, ClientURLs: []string{"https://b:2379"}},
		{ID: 2, Learner: true},
		{ID: 2, Version: command.Version{Major: 3, Minor: 7}},
		{ID: 2, Learner: true, Version: command.Version{Major: 3}},
	} {
		row := encode(nil, f)
		got, err := decode(row)
		if err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("%+v, %v; want %+v", got, err, f)
		}
		for cut := range row {
			if shorter, err := decode(row[:cut]); err == nil && !bytes.Equal(encode(nil, shorter), row[:cut]) {
				t.Errorf("cut at %d was taken", cut)
			}
		}
		if _, err := decode(append(row, 0)); err == nil && len(row) > 0 {
			t.Error("a byte too many was taken")
		}
	}
	if row := encode(nil, Facts{ID: 300, Name: "n", ClientURLs: []string{"u"}}); !bytes.Equal(row, []byte{1, 0xac, 2, 1, 'n', 0, 1, 1, 'u'}) {
		t.Errorf("% x", row)
	}
}

func FuzzFacts(f *testing.F) {
	f.Add(encode(nil, Facts{ID: 300, Name: "n", PeerURLs: []string{"", "p"}, ClientURLs: []string{"u"}}))
	f.Fuzz(func(t *testing.T, row []byte) {
		facts, err := decode(row)
		if err == nil && !bytes.Equal(encode(nil, facts), row) {
			t.Fatalf("read %+v from % x", facts, row)
		}
	})
}
