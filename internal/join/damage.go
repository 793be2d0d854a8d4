package join

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/internal/env"
)

// Damage is what a member remembers of damage to its data until it is repaired: the
// log that lost votes or entries may be replaced by an empty one that knows nothing
// of them (rule 5).
type Damage struct {
	// Reason names the file; it is empty when nothing is damaged.
	Reason string
	// Store says that it is the store that is damaged and still in its place.
	Store bool
}

const (
	damageName = "damaged"
	asideName  = "store.damaged"

	damageLog   = "kvorum damage v1 log"
	damageStore = "kvorum damage v1 store"
)

// recall reads what is remembered. A file that says nothing sensible is damage too.
func (h *Home) recall() error {
	names, err := list(h.fs, h.member)
	if err != nil || !slices.Contains(names, damageName) {
		return err
	}
	file, err := h.fs.Open(h.fs.PathJoin(h.member, damageName))
	if err != nil {
		return err
	}
	text, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	first, reason, _ := strings.Cut(string(text), "\n")
	h.Damage = Damage{Reason: strings.TrimSpace(reason), Store: first == damageStore}
	if h.Damage.Reason == "" {
		h.Damage.Reason = "for a reason that was not written down"
	}
	return nil
}

// Remember notes durably that the data are damaged.
func (h *Home) Remember(d Damage) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := damageLog
	if d.Store {
		first = damageStore
	}
	path := h.fs.PathJoin(h.member, damageName)
	if err := write(h.fs, path, first+"\n"+strings.ReplaceAll(d.Reason, "\n", " ")+"\n"); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := syncDir(h.fs, h.member); err != nil {
		return err
	}
	h.Damage = d
	return nil
}

// Repaired forgets the damage, unless it is that of the store, and removes the store
// that was set aside.
func (h *Home) Repaired() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Damage.Store {
		return nil
	}
	if err := h.fs.RemoveAll(h.fs.PathJoin(h.member, asideName)); err != nil {
		return err
	}
	names, err := list(h.fs, h.member)
	if err != nil {
		return err
	}
	if slices.Contains(names, damageName) {
		if err := h.fs.Remove(h.fs.PathJoin(h.member, damageName)); err != nil {
			return err
		}
	}
	h.Damage = Damage{}
	return syncDir(h.fs, h.member)
}

// SetStoreAside makes room for an empty store, remembers why, and returns where the
// damaged one is now: until Repaired, in the place of one that was set aside before.
// No store may be open.
func (h *Home) SetStoreAside(reason string) (aside string, err error) {
	if err := h.Remember(Damage{Reason: reason, Store: true}); err != nil {
		return "", err
	}
	aside = h.fs.PathJoin(h.member, asideName)
	if _, err := h.fs.Stat(h.Store); err == nil {
		if err := h.fs.RemoveAll(aside); err != nil {
			return "", err
		}
		if err := h.fs.Rename(h.Store, aside); err != nil {
			return "", err
		}
	}
	if err := syncDir(h.fs, h.member); err != nil {
		return "", err
	}
	return aside, h.Remember(Damage{Reason: reason})
}

func syncDir(fs env.FS, dir string) error {
	folder, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
