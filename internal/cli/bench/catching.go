package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A watcher that catches up reads some 200,000 events a second, which is work. In the
// process of those who put, what it takes would be waited for by every put, and be
// measured as if it were the server's. So it is a process of its own, which goes last
// where others want the same core: as if it were on another machine, but for what
// the kernel does for its connection.

// missed is what such a process is told on its standard input.
type missed struct {
	Server Server `json:"server"`
	// Password of the server's login, which the JSON of that leaves out.
	Password string `json:"password,omitempty"`
	Space    Space  `json:"space"`
	// Revisions that the watcher has missed.
	Revisions int `json:"revisions"`
}

// caught is what it answers on its standard output.
type caught struct {
	Events int64         `json:"events"`
	Took   time.Duration `json:"took_ns"`
	Error  string        `json:"error,omitempty"`
}

// catchUpVerb is the command of that process; it is this program.
const catchUpVerb = "catch-up"

// apart has another process catch up. cpu is what that has used, its start included.
func (m missed) apart(ctx context.Context) (c caught, cpu time.Duration, err error) {
	m.Password = m.Server.Password
	told, err := json.Marshal(m)
	if err != nil {
		return c, 0, err
	}
	program, err := os.Executable()
	if err != nil {
		return c, 0, err
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, catchUpVerb)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(told), &out, &errs
	if err := cmd.Run(); err != nil {
		return c, 0, fmt.Errorf("the watcher's process: %w: %s", err, bytes.TrimSpace(errs.Bytes()))
	}
	if err := json.Unmarshal(out.Bytes(), &c); err != nil {
		return c, 0, fmt.Errorf("the watcher's process: %w", err)
	}
	if c.Error != "" {
		err = errors.New(c.Error)
	}
	return c, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), err
}

func catchUpCommand(out io.Writer) *cobra.Command {
	return &cobra.Command{Use: catchUpVerb, Hidden: true, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		if err := goLast(); err != nil {
			return err
		}
		var m missed
		if err := json.NewDecoder(cmd.InOrStdin()).Decode(&m); err != nil {
			return err
		}
		m.Server.Password = m.Password
		c, err := m.catchUp(cmd.Context())
		if err != nil {
			c.Error = err.Error()
		}
		return json.NewEncoder(out).Encode(c)
	}}
}

// catchUp watches all keys from so many revisions before the present one, until that
// one has come.
func (m missed) catchUp(ctx context.Context) (c caught, err error) {
	conns, err := dial(ctx, m.Server, 1)
	if err != nil {
		return c, err
	}
	defer conns.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	now, err := pb.NewKVClient(conns.all[0]).Range(ctx, &pb.RangeRequest{Key: []byte("0"), CountOnly: true})
	if err != nil {
		return c, err
	}
	stream, err := openWatching(ctx, conns.all[0])
	if err != nil {
		return c, err
	}
	target := now.Header.Revision
	first := max(target-int64(m.Revisions)+1, 1)
	begin := time.Now()
	if err := stream.create(&pb.WatchCreateRequest{Key: m.Space.key(0), RangeEnd: m.Space.key(m.Space.Keys), StartRevision: first}); err != nil {
		return c, err
	}
	var r news
	for next := first; next <= target; {
		if err := stream.recv(&r); err != nil {
			return c, err
		}
		if r.canceled {
			return c, fmt.Errorf("%s: the watch ended: %s", m.Server.label(), r.reason)
		}
		for _, e := range r.told {
			if e.revision != next { // each put is a revision
				return c, fmt.Errorf("%s: revision %d came instead of %d", m.Server.label(), e.revision, next)
			}
			next++
			c.Events++
		}
	}
	c.Took = time.Since(begin)
	return c, nil
}
