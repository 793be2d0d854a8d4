package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// brief keeps a command's measurements short.
var brief = []string{"--keys", "100", "--key-bytes", "8", "--value-bytes", "32", "--rounds", "1", "--duration", "50ms", "--warmup", "10ms", "--rest", "0", "--clients", "4"}

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	c := Command(&out, &errs)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t, args...)
	if err != nil {
		t.Fatalf("bench %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// found is the JSON of a table of rows.
type found struct {
	Title, About string
	Data         []Row
}

func rowsOf(t *testing.T, out string) []Row {
	t.Helper()
	var f found
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if f.Title == "" || f.About == "" || len(f.Data) == 0 {
		t.Fatalf("an empty table: %s", out)
	}
	return f.Data
}

// Every workload, against a server that knows the right answers: what the server
// counted is what it was asked.
func TestEachWorkloadAsksForWhatItsNameSays(t *testing.T) {
	for _, c := range []struct {
		workload string
		asks     []string
		more     []string
	}{
		{"put", []string{"put"}, nil},
		{"get", []string{"get"}, nil},
		{"get-serializable", []string{"serializable"}, nil},
		{"range", []string{"range"}, []string{"--limit", "30"}},
		{"range-limit", []string{"limit"}, []string{"--limit", "30"}},
		{"range-all", []string{"range"}, nil},
		{"range-stream", []string{"range"}, nil},
		{"range-pages", []string{"limit"}, []string{"--limit", "30"}},
		{"count", []string{"count"}, nil},
		{"compare-and-put", []string{"get", "txn"}, nil},
	} {
		t.Run(c.workload, func(t *testing.T) {
			f := newFake()
			f.streams = true
			s := f.serve(t)
			rows := rowsOf(t, mustRun(t, append(append([]string{c.workload, "--json", "--endpoint", s.Endpoint}, brief...), c.more...)...))
			r := rows[0].Servers[0]
			if r.Calls == 0 || r.Rate <= 0 || r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.P999 || r.P999 > r.Max || r.Received <= 0 {
				t.Errorf("%+v", r)
			}
			for text := range r.Errors {
				if text != errOvertaken.Error() {
					t.Errorf("%d x %s", r.Errors[text], text)
				}
			}
			for _, kind := range c.asks {
				if n := int64(f.saw(kind)); n < r.Calls {
					t.Errorf("%d calls of which the server saw %d as %s", r.Calls, n, kind)
				}
			}
		})
	}
}

// Calls are made in the name of a user, who logs in once; the workload that does nothing
// else logs in with every call.
func TestCallsAreMadeInAUsersName(t *testing.T) {
	f := newFake()
	f.logins = &logins{}
	s := f.serve(t)
	common := append([]string{"--json", "--endpoint", s.Endpoint, "--user", "ann", "--password", "secret"}, brief...)
	r := rowsOf(t, mustRun(t, append([]string{"put"}, common...)...))[0].Servers[0]
	if n := f.logins.named.Load(); r.Calls == 0 || len(r.Errors) > 0 || n < r.Calls || f.logins.made.Load() == 0 {
		t.Errorf("%d calls, %d with a token, %v", r.Calls, n, r.Errors)
	}
	before := f.logins.made.Load()
	out := mustRun(t, append([]string{"authenticate"}, common...)...)
	if r := rowsOf(t, out)[0].Servers[0]; r.Calls == 0 || len(r.Errors) > 0 || f.logins.made.Load()-before < r.Calls || strings.Contains(out, "secret") {
		t.Errorf("%d calls, %d logins, %v, %s", r.Calls, f.logins.made.Load()-before, r.Errors, out)
	}
	for _, args := range [][]string{{"authenticate"}, {"put", "--user", "ann", "--password", "wrong"}} {
		if _, err := run(t, append(append(args, "--endpoint", s.Endpoint), brief...)...); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

// Calls are measured while permissions are checked and while they are not, as often; what
// was made for it is gone afterwards, and a server that has users is left alone.
func TestPermissionsAreMeasuredInTurns(t *testing.T) {
	f := newFake()
	f.logins = &logins{}
	s := f.serve(t)
	common := append(append([]string{"permissions", "--json", "--endpoint", s.Endpoint}, brief...), "--rounds", "2")
	var found struct{ Data map[string][][]Judging }
	if out := mustRun(t, common...); json.Unmarshal([]byte(out), &found) != nil || len(found.Data) != 2 {
		t.Fatalf("%s", out)
	}
	var on int64
	for name, servers := range found.Data {
		if len(servers) != 1 || len(servers[0]) != 2 {
			t.Fatalf("%s: %v", name, servers)
		}
		for _, j := range servers[0] {
			if j.Off.Calls == 0 || j.On.Calls == 0 || len(j.faults()) > 0 || j.Rate <= 0 {
				t.Errorf("%s: %+v", name, j)
			}
			on += j.On.Calls
		}
	}
	if n := f.logins.named.Load(); n < on {
		t.Errorf("%d calls, %d with a token", on, n)
	}
	f.logins.users.Range(func(name, _ any) bool {
		t.Errorf("%v is left", name)
		return true
	})
	if f.logins.on.Load() {
		t.Error("permissions are checked still")
	}
	f.logins.users.Store("root", "another")
	if _, err := run(t, common...); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("a server with users: %v", err)
	}
	if password, known := f.logins.users.Load("root"); !known || password != "another" {
		t.Errorf("its root has the password %v", password)
	}
}

func TestOfTwoServersTheRatiosAreTheFirstOverTheSecond(t *testing.T) {
	a, b := newFake().serve(t), newFake().serve(t)
	args := append([]string{"get", "--endpoint", a.Endpoint, "--against", b.Endpoint, "--name", "A", "--pid", fmt.Sprint(os.Getpid()), "--against-pid", fmt.Sprint(os.Getpid())}, brief[:len(brief)-2]...)
	args = append(args, "--rounds", "3", "--clients", "1,2")
	rows := rowsOf(t, mustRun(t, append(args, "--json")...))
	if len(rows) != 2 || rows[0].Options.Clients != 1 || rows[1].Options.Clients != 2 {
		t.Fatalf("%+v", rows)
	}
	for _, row := range rows {
		x, y := row.Servers[0], row.Servers[1]
		if x.Server != "A" || y.Server != b.Endpoint || len(x.Rounds) != 3 {
			t.Errorf("servers %q and %q, %d rounds", x.Server, y.Server, len(x.Rounds))
		}
		if got, want := row.Ratios["rate_per_second"], x.Rate/y.Rate; math.Abs(got-want) > 1e-9 {
			t.Errorf("the ratio of rates is %g, not %g", got, want)
		}
		if x.Resident <= 0 || x.Peak <= 0 {
			t.Errorf("memory of a known process: %d, %d", x.Resident, x.Peak)
		}
	}
	// The same as a table, with a line of ratios after each pair.
	lines := strings.Split(strings.TrimSpace(mustRun(t, append(args, "--markdown")...)), "\n")
	row := regexp.MustCompile(`^\|  \| \*\*ratio\*\* \|  \| \*\*\d+\.\d\d\*\* \| `)
	if len(lines) != 12 || lines[0] != "### get" || !row.MatchString(lines[8]) || !row.MatchString(lines[11]) {
		t.Errorf("%s", strings.Join(lines, "\n"))
	}
	if text := mustRun(t, args...); !strings.Contains(text, "p99.9") || !strings.Contains(text, "ratio") {
		t.Errorf("%s", text)
	}
}

func TestAServerWithoutRangeStreamSaysSoOrIsAskedForAUnaryRange(t *testing.T) {
	ours := newFake()
	ours.streams = true
	a, b := ours.serve(t), newFake().serve(t)
	args := append([]string{"range-stream", "--endpoint", a.Endpoint, "--against", b.Endpoint, "--against-name", "old"}, brief...)
	out := mustRun(t, append(args, "--markdown")...)
	if !regexp.MustCompile(`\|  \| old \|  \| unimplemented \| - `).MatchString(out) {
		t.Errorf("%s", out)
	}
	rows := rowsOf(t, mustRun(t, append(args, "--against-unary", "--json")...))
	if other := rows[0].Servers[1]; other.Server != "old (range-all)" || other.Calls == 0 || len(other.Errors) != 0 {
		t.Errorf("%+v", other)
	}
}

// A server that leaves keys out is not fast but wrong.
func TestWrongAnswersAreErrors(t *testing.T) {
	f := newFake()
	s := f.serve(t)
	mustRun(t, "fill", "--endpoint", s.Endpoint, "--keys", "100", "--key-bytes", "8", "--value-bytes", "32")
	f.mu.Lock()
	f.lost = 3
	f.mu.Unlock()
	for workload, text := range map[string]string{"range-all": "wrong answer: 97 keys instead of 100", "count": "wrong answer: 97 keys instead of 100"} {
		r := rowsOf(t, mustRun(t, append([]string{workload, "--json", "--endpoint", s.Endpoint}, brief...)...))[0].Servers[0]
		if r.Calls != 0 || r.Errors[text] == 0 {
			t.Errorf("%s: %d calls, errors %v", workload, r.Calls, r.Errors)
		}
	}
}

func TestAnOpenLoopMakesTheCallsThatAreDue(t *testing.T) {
	f := newFake()
	s := f.serve(t)
	args := append([]string{"put", "--json", "--endpoint", s.Endpoint, "--rate", "500", "--arrivals", "even"}, brief...)
	r := rowsOf(t, mustRun(t, append(args, "--duration", "400ms", "--warmup", "0")...))[0].Servers[0]
	// 200 arrivals of which the last may fall just outside of the window.
	if r.Calls < 199 || f.saw("put") != int(r.Calls) {
		t.Errorf("%d calls, %d puts at the server", r.Calls, f.saw("put"))
	}
}

func TestMistakesInFlagsAreNamed(t *testing.T) {
	s := newFake().serve(t)
	for args, want := range map[string]string{
		"put --keys 0":                                        "at least one key",
		"put --key-bytes 3":                                   "at least 6 bytes",
		"put --clients 0":                                     "0 clients",
		"put --duration 0":                                    "cannot last",
		"put --rate -1":                                       "-1 calls a second",
		"put --arrivals bursty":                               `not "bursty"`,
		"put --json --markdown":                               "exclude each other",
		"range --limit 200000":                                "does not fit 100000 keys",
		"put --endpoint nowhere":                              "missing port",
		"put --endpoint https://127.0.0.1:1":                  "plain text",
		"put --against-program /bin/true":                     "needs --program",
		"put-while-compacting --rate 0":                       "needs a rate",
		"put-while-compacting --clients 1,2":                  "one number of clients",
		"put-while-compacting --revisions 0":                  "cannot be compacted",
		"restart":                                             "--program is needed",
		"watch-behind --rate 0":                               "needs a rate",
		"watch-behind --behind 0":                             "cannot be 0 revisions",
		"lease-end --rate 0":                                  "needs a rate",
		"lease-end --ending-leases 0":                         "0 leases",
		"watch --streams 2 --watchers 1":                      "do not fit",
		"watch --on streets":                                  `not on "streets"`,
		"watch --stalled -1":                                  "-1 stalled",
		"watch --value-bytes 8":                               "at least 16 bytes",
		"watch --clients 1,2":                                 "one number of clients",
		"keep-alive --leases 1 --clients 2":                   "cannot renew 1 leases",
		"suite --only puts":                                   `no table "puts"`,
		"wait --endpoint 127.0.0.1:1 --timeout 50ms":          "no answer",
		"put --program /nonexistent/etcd":                     "no such file",
		"put --members 3":                                     "--members needs --program",
		"put --program /bin/true --members 0":                 "cannot have 0 members",
		"put --keys 10 --rest 0 --duration 1ms --pid 4194305": "process 4194305",
	} {
		fields := strings.Fields(args)
		if !strings.Contains(args, "--endpoint") && !strings.Contains(args, "program") && fields[0] != "restart" && fields[0] != "suite" {
			fields = append(fields, "--endpoint", s.Endpoint)
		}
		if _, err := run(t, fields...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("bench %s: %v, which does not say %q", args, err, want)
		}
	}
}

func TestWaitReturnsWhenAGetIsAnswered(t *testing.T) {
	s := newFake().serve(t)
	out := mustRun(t, "wait", "--endpoint", "http://"+s.Endpoint)
	if d, err := time.ParseDuration(strings.TrimSpace(out)); err != nil || d <= 0 {
		t.Errorf("%q: %v", out, err)
	}
}

func TestPutsAreMeasuredUntilTheCompactionReturns(t *testing.T) {
	f := newFake()
	const meanwhile = 50
	f.compacting = func(ctx context.Context) error {
		for range meanwhile {
			select {
			case <-f.made:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	s := f.serve(t)
	out := mustRun(t, append([]string{"put-while-compacting", "--json", "--endpoint", s.Endpoint, "--revisions", "300", "--rate", "1000"}, brief...)...)
	var got struct{ Data [][]Compacting }
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	c := got.Data[0][0]
	if c.Quiet.Calls == 0 || c.Busy.Calls < meanwhile/2 || c.Took <= 0 || f.saw("compact") != 1 {
		t.Errorf("%+v", c)
	}
	if want := float64(c.Busy.P99) / float64(c.Quiet.P99); c.Ratio != want {
		t.Errorf("the ratio is %g, not %g", c.Ratio, want)
	}
	// The key space, the revisions, and what was measured.
	if least := 100 + 300 + int(c.Quiet.Calls+c.Busy.Calls); f.saw("put") < least {
		t.Errorf("%d puts, at least %d were due", f.saw("put"), least)
	}
}

func TestAFailedCompactionIsNoMeasurement(t *testing.T) {
	f := newFake()
	f.compacting = func(context.Context) error { return status.Error(codes.Internal, "the disk is full") }
	s := f.serve(t)
	_, err := run(t, append([]string{"put-while-compacting", "--endpoint", s.Endpoint, "--revisions", "10"}, brief...)...)
	if err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("%v", err)
	}
}
