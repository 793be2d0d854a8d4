//go:build defects

package embed

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/kvorum/kvorum/internal/defect"
	"github.com/kvorum/kvorum/internal/server"
)

// Each story ends well without its mistake and badly with it.
func TestAuthDefectsAreFound(t *testing.T) {
	stories := []struct {
		defect defect.Defect
		well   func(t *testing.T) bool
	}{
		{defect.TokenOutlivesPassword, func(t *testing.T) bool {
			m := startMember(t, t.TempDir(), cheap...)
			people(t, login(t, "", "", m.client))
			root := login(t, "root", "rootpw", m.client)
			token := must(root.Authenticate(t.Context(), "ann", "annpw")).Token
			must(root.UserChangePassword(t.Context(), "ann", "other"))
			ctx := metadata.AppendToOutgoingContext(t.Context(), "token", token)
			_, err := pb.NewKVClient(m.conn).Range(ctx, &pb.RangeRequest{Key: []byte("a")})
			return err != nil
		}},
		{defect.WatchOutlivesGrant, func(t *testing.T) bool {
			m := startMember(t, t.TempDir(), cheap...)
			people(t, login(t, "", "", m.client))
			root, ann := login(t, "root", "rootpw", m.client), login(t, "ann", "annpw", m.client)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			w := ann.Watch(ctx, "a", clientv3.WithCreatedNotify())
			<-w
			must(root.UserRevokeRole(ctx, "ann", "ac"))
			must(root.Put(ctx, "a", "secret"))
			r := <-w
			return len(r.Events) == 0
		}},
		{defect.BadTokenForgiven, func(t *testing.T) bool {
			m := startMember(t, t.TempDir(), cheap...)
			people(t, login(t, "", "", m.client))
			who, _, err := m.Server.member.Identify(&server.Credentials{Token: "bad", Shown: true, Certificate: "ann"}, true)
			return err != nil && who.User == ""
		}},
		{defect.PasswordInCommand, func(t *testing.T) bool {
			dir := t.TempDir()
			m := startMember(t, dir, cheap...)
			must(login(t, "", "", m.client).UserAdd(t.Context(), "ann", "planted-secret"))
			m.stop()
			found := false
			err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.Type().IsRegular() {
					text, _ := os.ReadFile(path)
					found = found || bytes.Contains(text, []byte("planted-secret"))
				}
				return err
			})
			return err == nil && !found
		}},
	}
	defer defect.Plant(defect.None)
	for _, s := range stories {
		defect.Plant(defect.None)
		if !s.well(t) {
			t.Errorf("%v: found where it is not", s.defect)
		}
		defect.Plant(s.defect)
		if s.well(t) {
			t.Errorf("%v: not found", s.defect)
		}
	}
}

// What the oracle finds in the check alone it finds behind the doors as well.
func TestEveryCallFindsDefects(t *testing.T) {
	defer defect.Plant(defect.None)
	for i, d := range []defect.Defect{
		defect.NestedTxnUnchecked, defect.NestedPrevUnchecked, defect.NestedLeaseUnchecked, defect.OpenEndForgotten,
		defect.MaintenanceForNobody, defect.FailureBranchUnchecked, defect.ComparesUnchecked, defect.DeletePrevUnchecked,
		defect.LeaseKeysUnchecked, defect.TokenOutlivesPassword,
	} {
		defect.Plant(defect.None)
		m := startMember(t, t.TempDir(), "--bcrypt-cost=4", "--unsafe-no-fsync")
		w := newWalk(t, m, m.conn, uint64(i))
		defect.Plant(d)
		if wrong := w.walked(30_000); wrong == "" {
			t.Errorf("%v: not found", d)
		}
		m.stop()
	}
}
