package embed

import (
	"sync/atomic"
	"testing"

	"github.com/kvorum/kvorum/internal/server"
	"github.com/kvorum/kvorum/internal/state/command"
)

// What every call costs more while permissions are checked: to know its caller by his
// token, and to ask whether he may, here at admission.
func BenchmarkJudging(b *testing.B) {
	m := startMember(b, b.TempDir(), cheap...)
	c := login(b, "", "", m.client)
	people(b, c)
	token := must(c.Authenticate(b.Context(), "ann", "annpw")).Token
	member, state := m.Server.member, m.Server.state
	for name, connected := range map[string]bool{"identify": false, "identify again": true} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				c := server.Credentials{Token: token, Shown: true}
				if connected {
					c.Last = new(atomic.Value)
				}
				for pb.Next() {
					if who, _, err := member.Identify(&c, false); err != nil || who.User != "ann" {
						b.Fatal(who, err)
					}
				}
			})
		})
	}
	b.Run("permit", func(b *testing.B) {
		b.ReportAllocs()
		who, _, err := member.Identify(&server.Credentials{Token: token, Shown: true}, false)
		if err != nil {
			b.Fatal(err)
		}
		put := &command.PutRequest{Key: []byte("a1")}
		for b.Loop() {
			if err := state.View().Permit(who, put); err != nil {
				b.Fatal(err)
			}
		}
	})
}
