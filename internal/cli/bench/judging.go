package bench

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Judging is what it costs a server to check permissions.
type Judging struct {
	Server string `json:"server"`
	// Off and On are the same calls one right after the other: by nobody while permissions
	// are not checked, and by a user who may read and write the key space.
	Off Result `json:"off"`
	On  Result `json:"on"`
	// Rate and CPU are the ratios, On over Off, of calls per second and of the server's
	// time per call; CPU is 0 when the server's PID is unknown.
	Rate float64 `json:"rate_ratio"`
	CPU  float64 `json:"server_cpu_ratio"`
}

func (j Judging) server() string { return j.Server }

func (j Judging) faults() map[string]int64 { return added(j.Off.Errors, j.On.Errors) }

// Whom permissions are checked for, and who switches the checking on and off. Their
// passwords are good for a server that is measured, not for one with secrets.
var (
	judged = login{User: "bench", Password: "bench"}
	judge  = login{User: "root", Password: "bench"}
)

// judgingPlan is the scenario's options.
type judgingPlan struct {
	work workload
	opts Options
}

// asRoot calls f with the Auth service of a server, in root's name once permissions are
// checked.
func asRoot(ctx context.Context, s Server, f func(pb.AuthClient) error) error {
	s.login = login{}
	conns, err := dial(ctx, s, 1)
	if err != nil {
		return err
	}
	defer conns.close()
	auth := pb.NewAuthClient(conns.all[0])
	now, err := auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
	if err != nil {
		return fmt.Errorf("%s: auth status: %w", s.label(), err)
	}
	if now.Enabled {
		s.login = judge
		if err := conns.logIn(ctx, s); err != nil {
			return err
		}
	}
	if err := f(auth); err != nil {
		return fmt.Errorf("%s: %w", s.label(), err)
	}
	return nil
}

// check switches the checking of permissions on or off.
func (judgingPlan) check(ctx context.Context, s Server, on bool) error {
	return asRoot(ctx, s, func(auth pb.AuthClient) error {
		if on {
			_, err := auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
			return err
		}
		_, err := auth.AuthDisable(ctx, &pb.AuthDisableRequest{})
		return err
	})
}

// users makes both users. A server that has users already is not one to measure: the first
// call that fails ends it.
func (p judgingPlan) users(ctx context.Context, s Server) error {
	return asRoot(ctx, s, func(auth pb.AuthClient) error {
		all := &authpb.Permission{PermType: authpb.READWRITE, Key: p.opts.Space.key(0), RangeEnd: p.opts.Space.key(p.opts.Keys)}
		for _, call := range []func() error{
			func() error {
				_, err := auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: judge.User, Password: judge.Password})
				return err
			},
			func() error {
				_, err := auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: judge.User, Role: "root"})
				return err
			},
			func() error { _, err := auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: judged.User}); return err },
			func() error {
				_, err := auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: judged.User, Perm: all})
				return err
			},
			func() error {
				_, err := auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: judged.User, Password: judged.Password})
				return err
			},
			func() error {
				_, err := auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: judged.User, Role: judged.User})
				return err
			},
		} {
			if err := call(); err != nil {
				return err
			}
		}
		return nil
	})
}

// gone takes both users away, and the checking with them.
func (p judgingPlan) gone(ctx context.Context, s Server) error {
	if err := p.check(ctx, s, false); err != nil {
		return err
	}
	return asRoot(ctx, s, func(auth pb.AuthClient) error {
		_, first := auth.UserDelete(ctx, &pb.AuthUserDeleteRequest{Name: judged.User})
		_, second := auth.UserDelete(ctx, &pb.AuthUserDeleteRequest{Name: judge.User})
		_, third := auth.RoleDelete(ctx, &pb.AuthRoleDeleteRequest{Role: judged.User})
		return errors.Join(first, second, third)
	})
}

// run measures both, in the opposite order every second round. They draw other keys: what
// was read in the first window would be near in the second.
func (p judgingPlan) run(ctx context.Context, s Server, round int, t turns) (Judging, error) {
	j, seed := Judging{Server: s.label()}, p.opts.Seed+2*uint64(round)
	for k, i := range order(round, 2) {
		p.opts.Seed = seed + uint64(k)
		window, who := &j.Off, login{}
		if i == 1 {
			window, who = &j.On, judged
		}
		if err := p.check(ctx, s, i == 1); err != nil {
			return j, err
		}
		if err := settle(ctx, []Server{s}, t.rest); err != nil {
			return j, err
		}
		as := s
		as.login = who
		var err error
		if *window, err = once(ctx, as, p.work, p.opts); err != nil {
			return j, err
		}
	}
	if j.Off.Calls > 0 {
		j.Rate = j.On.Rate / j.Off.Rate
	}
	if j.Off.ServerCPU > 0 {
		j.CPU = float64(j.On.ServerCPU) / float64(j.Off.ServerCPU)
	}
	return j, nil
}

var judgingColumns = []column[Judging]{
	{"calls/s unchecked", func(j Judging) figure { return number(j.Off.Rate) }},
	{"calls/s checked", func(j Judging) figure { return number(j.On.Rate) }},
	{"rate to unchecked", func(j Judging) figure { return number(j.Rate) }},
	{"p99 unchecked", func(j Judging) figure { return span(j.Off.P99) }},
	{"p99 checked", func(j Judging) figure { return span(j.On.P99) }},
	{"CPU/call unchecked", func(j Judging) figure { return span(j.Off.ServerCPU) }},
	{"CPU/call checked", func(j Judging) figure { return span(j.On.ServerCPU) }},
	{"CPU to unchecked", func(j Judging) figure { return number(j.CPU) }},
}

// compareJudging runs the scenario on all servers in turns, for each workload.
func compareJudging(ctx context.Context, servers []Server, o Options, t turns, progress io.Writer) (_ *table, err error) {
	if err := o.check(find("put")); err != nil {
		return nil, err
	}
	out := scenarioTable("Permissions", fmt.Sprintf("The same calls of %d clients, by nobody while permissions are not checked and by a user with one range of keys, one right after the other. %s",
		o.Clients, o.about(t.rounds)), judgingColumns)
	findings := map[string][][]Judging{}
	for _, s := range servers {
		p := judgingPlan{opts: o}
		if err := (filler{server: s, space: o.Space, seed: o.Seed, progress: progress}).ensure(ctx); err != nil {
			return nil, err
		}
		if err := p.users(ctx, s); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, p.gone(context.WithoutCancel(ctx), s)) }()
	}
	for _, name := range []string{"get", "put"} { // after puts the store is still at work
		all, err := take(ctx, t, servers, func(i, round int) (Judging, error) {
			return judgingPlan{work: find(name), opts: o}.run(ctx, servers[i], round, t)
		})
		if err != nil {
			return nil, err
		}
		addCase(out, name, all, judgingColumns)
		findings[name] = all
	}
	out.data = findings
	return out, nil
}

func judgingCommand(out, errs io.Writer) *cobra.Command {
	var (
		t targets
		s settings
	)
	cmd := scenarioCommand(out, &cobra.Command{Use: "permissions", Short: "put and get, while permissions are checked and while they are not; the server must have no users"}, &s, &t,
		func(ctx context.Context, servers []Server, o Options) (*table, error) {
			return compareJudging(ctx, servers, o, s.turns, errs)
		})
	s.addSpace(cmd.Flags(), 100_000)
	s.addLoop(cmd.Flags(), []int{64}, 0)
	s.addTurns(cmd.Flags(), 5)
	return cmd
}
