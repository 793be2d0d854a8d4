package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
)

// check is one named question of /livez or /readyz, and what its answers were.
type check struct {
	name string
	ask  func(context.Context) error
	// passed and failed count the answers; last is 1 after one that passed, -1 after
	// one that failed, 0 while nobody has asked.
	passed, failed atomic.Uint64
	last           atomic.Int32
}

var (
	errCorrupt = errors.New("alarm activated: CORRUPT")
	errLearner = errors.New("the member is a learner: it cannot serve linearizable reads or writes")
)

// checksOf are the checks of a member. Whoever fails one of /livez should be
// restarted, whoever fails one of /readyz be sent no clients.
func checksOf(m Member) (livez, readyz []*check) {
	read := func(serializable bool) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := m.Read(ctx, serializable); err != nil {
				return fmt.Errorf("range error: %w", err)
			}
			return nil
		}
	}
	corruption := func(context.Context) error {
		if slices.Contains(m.Alarms(), Corrupt) {
			return errCorrupt
		}
		return nil
	}
	votes := func(context.Context) error {
		if m.IsLearner() {
			return errLearner
		}
		return nil
	}
	livez = []*check{{name: "serializable_read", ask: read(true)}}
	readyz = []*check{
		{name: "data_corruption", ask: corruption}, {name: "serializable_read", ask: read(true)},
		{name: "linearizable_read", ask: read(false)}, {name: "non_learner", ask: votes},
	}
	return livez, readyz
}

// registerChecks puts /kind, and /kind/name for each check, on mux.
func (d *Door) registerChecks(mux *http.ServeMux, kind string, checks []*check) {
	mux.Handle("/"+kind, getOnly(d.checkHandler(kind, checks)))
	for _, c := range checks {
		mux.Handle("/"+kind+"/"+c.name, getOnly(d.checkHandler(kind, []*check{c})))
	}
}

// checkHandler makes the checks that the query does not exclude. What is excluded
// and does not exist is only told in the log: a probe may be older than the member.
func (d *Door) checkHandler(kind string, checks []*check) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		var lines strings.Builder
		well := true
		excluded := query["exclude"]
		for _, c := range checks {
			if i := slices.Index(excluded, c.name); i >= 0 {
				excluded = slices.Delete(slices.Clone(excluded), i, i+1)
				continue
			}
			if err := c.run(r.Context()); err != nil {
				well = false
				fmt.Fprintf(&lines, "[-]%s failed: %v\n", c.name, err)
			} else {
				fmt.Fprintf(&lines, "[+]%s ok\n", c.name)
			}
		}
		if len(excluded) > 0 {
			d.log.Warn("some health checks cannot be excluded", "path", "/"+kind, "checks", strings.Join(excluded, ","))
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !well {
			d.log.Warn("serving /"+kind+": a health check failed", "checks", strings.TrimSpace(lines.String()))
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(lines.String()))
			return
		}
		if _, verbose := query["verbose"]; verbose {
			_, _ = w.Write([]byte(lines.String()))
		}
		_, _ = w.Write([]byte("ok\n"))
	}
}

// run asks and counts.
func (c *check) run(ctx context.Context) error {
	err := c.ask(ctx)
	if err != nil {
		c.failed.Add(1)
		c.last.Store(-1)
		return err
	}
	c.passed.Add(1)
	c.last.Store(1)
	return nil
}

// CheckTally is what one named check has found since the start of the member.
type CheckTally struct {
	// Kind is livez or readyz.
	Kind, Name     string
	Passed, Failed uint64
	// Well is the last answer.
	Well bool
}

// Tally is what all checks have found since the start of the member.
type Tally struct {
	// Healthy and Unwell are the answers of /health.
	Healthy, Unwell uint64
	// Checks are those of /livez and /readyz that were asked.
	Checks []CheckTally
}

// Tally looks at the counts. Any goroutine may call it.
func (d *Door) Tally() Tally {
	t := Tally{Healthy: d.healthy.Load(), Unwell: d.unwell.Load()}
	for _, kind := range []struct {
		name   string
		checks []*check
	}{{"livez", d.livez}, {"readyz", d.readyz}} {
		for _, c := range kind.checks {
			if last := c.last.Load(); last != 0 {
				t.Checks = append(t.Checks, CheckTally{Kind: kind.name, Name: c.name, Passed: c.passed.Load(), Failed: c.failed.Load(), Well: last > 0})
			}
		}
	}
	return t
}
