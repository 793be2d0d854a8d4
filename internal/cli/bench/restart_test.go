package bench

import (
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"testing"
)

var restartArgs = []string{"restart", "--keys", "50", "--key-bytes", "8", "--value-bytes", "8", "--dirty", "10", "--idle", "0", "--rest", "0", "--rounds", "2"}

// asServer makes the test binary, started again, a server.
func asServer(t *testing.T, as string) (path, dir string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("memory is read from /proc")
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(asProgram, as)
	return path, t.TempDir()
}

func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRestartsAreMeasuredInTurns(t *testing.T) {
	path, dir := asServer(t, "yes")
	args := append([]string{}, restartArgs...)
	args = append(args, "--dir", dir, "--program", path, "--against-program", path, "--name", "first")
	var got struct{ Data []Loaded }
	if err := json.Unmarshal([]byte(mustRun(t, append(args, "--json")...)), &got); err != nil {
		t.Fatal(err)
	}
	empty(t, dir)
	if len(got.Data) != 2 || got.Data[0].Server != "first" || !strings.HasSuffix(got.Data[1].Server, " 9.9") {
		t.Fatalf("%+v", got.Data)
	}
	for _, l := range got.Data {
		if l.Load <= 0 || l.AfterLoad.Resident <= 0 || l.Idle.Anonymous <= 0 || l.Peak < l.AfterLoad.Resident || l.Disk < 50*9 {
			t.Errorf("%+v", l)
		}
		if len(l.AfterTerm) != 2 || len(l.AfterKill) != 2 {
			t.Fatalf("%d restarts after SIGTERM, %d after kill -9", len(l.AfterTerm), len(l.AfterKill))
		}
		for _, r := range append(l.AfterTerm, l.AfterKill...) {
			if r.Ready <= 0 || r.Stop <= 0 || r.Idle.Resident <= 0 {
				t.Errorf("%+v", r)
			}
		}
	}
}

func TestTheTableOfRestartsHasARatioInEachLine(t *testing.T) {
	loaded := func(name string, unit int64) *Loaded {
		m := Memory{Resident: unit << 20, Anonymous: unit << 20}
		r := []Restart{{Stop: 1e6, Ready: 2e6, CPU: 3e6, Idle: m}}
		return &Loaded{Server: name, Load: 1e9, AfterLoad: m, Peak: unit << 20, Idle: m, Disk: unit << 20, AfterTerm: r, AfterKill: r}
	}
	tab := restartTable([]*Loaded{loaded("ours", 10), loaded("theirs", 40)}, restartPlan{space: small}, 1)
	var b strings.Builder
	if err := tab.print(&b, Markdown); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| figure | ours | theirs | ratio |\n", "| load | 1.00 s | 1.00 s | 1.00 |\n",
		"| data directory | 10.0 MiB | 40.0 MiB | 0.25 |\n", "| kill -9: first get after | 2.00 ms | 2.00 ms | 1.00 |\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestAServerThatForgetsKeysFailsItsRestart(t *testing.T) {
	path, dir := asServer(t, "forgetful")
	_, err := run(t, append(append([]string{}, restartArgs...), "--dir", dir, "--program", path)...)
	if err == nil || !strings.Contains(err.Error(), "after its restart: wrong answer: 0 keys instead of 50") {
		t.Errorf("%v", err)
	}
	empty(t, dir)
}

func TestAProgramThatEndsAtOnceIsQuoted(t *testing.T) {
	path, dir := asServer(t, "broken")
	_, err := run(t, append(append([]string{}, restartArgs...), "--dir", dir, "--program", path)...)
	if err == nil || !strings.Contains(err.Error(), "the disk of bench0 is upside down") {
		t.Errorf("%v", err)
	}
	empty(t, dir)
}

func TestTheSuitePrintsTheTablesAskedFor(t *testing.T) {
	path, dir := asServer(t, "yes")
	out := mustRun(t, "suite", "--dir", dir, "--program", path, "--name", "fake", "--markdown", "--only", "compare-and-put,restart",
		"--keys", "50", "--key-bytes", "8", "--value-bytes", "0", "--duration", "20ms", "--warmup", "0", "--rounds", "1", "--rest", "0",
		"--restart-keys", "60", "--restart-rounds", "1", "--dirty", "5", "--idle", "0")
	empty(t, dir)
	if strings.Count(out, "\n### ") != 1 || !strings.HasPrefix(out, "### Compare and put\n") || !strings.Contains(out, "\n### Memory, disk and restart\n\n60 keys") {
		t.Errorf("%s", out)
	}
}

func TestSectionsOfTheSuiteNameWorkloads(t *testing.T) {
	for _, s := range sections {
		for _, a := range s.asks {
			w := find(a.workload) // panics if there is none
			if w.limited != (a.limit > 0) || len(a.clients) == 0 {
				t.Errorf("%s: %+v", s.name, a)
			}
			if a.other != "" {
				find(a.other)
			}
		}
	}
}

func TestUsageIsReadWhateverTheProcessIsCalled(t *testing.T) {
	stat := "42 (a) b (c 1 2) S 1 42 42 0 -1 4194304 100 0 0 0 250 75 9 9 20 0 12 0 100 1000 200"
	status := "Name:\ta\nVmHWM:\t    3000 kB\nVmRSS:\t    2000 kB\nRssAnon:\t    1500 kB\n"
	u, err := parseUsage(stat, status)
	if want := (usage{CPU: 3250e6, Resident: 2000 << 10, Anonymous: 1500 << 10, Peak: 3000 << 10}); err != nil || u != want {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := parseUsage("42 (a) S 1 42", status); err == nil {
		t.Error("a stat that was cut short was read")
	}
	if u, err := observe(0); err != nil || u != (usage{}) {
		t.Errorf("an unknown process: %+v, %v", u, err)
	}
}

func TestFiguresKeepThreeDigitsAndTheirUnit(t *testing.T) {
	for want, f := range map[string]figure{
		"-": span(0), "87 us": span(87_400), "1.23 ms": span(1_234_000), "45.7 ms": span(45_678_000), "457 ms": span(456_780_000),
		"1.50 s": span(1_500_000_000), "90.0 s": span(90_000_000_000), "12346": number(12345.6), "0.50": number(0.5),
		"293 MiB": size(293 << 20), "1.50 MiB": size(3 << 19),
	} {
		if got := f.String(); got != want {
			t.Errorf("%g is %q, not %q", f.value, got, want)
		}
	}
}

func TestEachFigureIsTheMedianOfItsOwn(t *testing.T) {
	s := summary([]Result{
		{Server: "s", Calls: 1, Rate: 10, P99: 300, Errors: map[string]int64{"x": 1}},
		{Server: "s", Calls: 2, Rate: 30, P99: 100},
		{Server: "s", Calls: 3, Rate: 20, P99: 200, Errors: map[string]int64{"x": 2, "y": 1}},
	})
	if s.Rate != 20 || s.P99 != 200 || s.Calls != 6 || s.Errors["x"] != 3 || s.Errors["y"] != 1 || len(s.Rounds) != 3 {
		t.Errorf("%+v", s)
	}
	if got := order(0, 2); got[0] != 0 || got[1] != 1 {
		t.Errorf("the first round goes %v", got)
	}
	if got := order(1, 2); got[0] != 1 || got[1] != 0 {
		t.Errorf("the second round goes %v", got)
	}
}
