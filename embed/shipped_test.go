package embed

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var (
	// A name that is followed by what an instant or a range of it may be; functions are
	// followed by a bracket.
	metricName = regexp.MustCompile(`\b((?:etcd|kvorum|grpc|go|process|os)_[a-z0-9_]+)(\{[^}]*\})?`)
	selected   = regexp.MustCompile(`([A-Za-z_]+)\s*(?:=~|!~|!=|=)\s*"`)
	grouped    = regexp.MustCompile(`\b(?:by|without) \(([^)]*)\)`)
	// functionCall are the functions and operators of Prometheus that the expressions use.
	functionCall = regexp.MustCompile(`\b([a-z_]+)\s*\(`)
)

// What Prometheus itself adds to every series, and what is made by an expression.
var added = []string{"job", "instance", "le"}

var functions = []string{
	"sum", "count", "max", "by", "rate", "increase", "histogram_quantile", "predict_linear", "label_values",
}

// checkExpression finds what an expression asks for that nobody shows.
func checkExpression(t *testing.T, where, expr string, got map[string]*family) {
	t.Helper()
	if strings.Count(expr, "(") != strings.Count(expr, ")") || strings.Count(expr, "{") != strings.Count(expr, "}") ||
		strings.Count(expr, "[") != strings.Count(expr, "]") || strings.Count(expr, `"`)%2 != 0 {
		t.Errorf("%s: brackets do not match: %s", where, expr)
	}
	known := slices.Clone(added)
	names := metricName.FindAllStringSubmatch(grouped.ReplaceAllString(expr, " "), -1)
	if len(names) == 0 && !strings.Contains(expr, "up{") {
		t.Errorf("%s asks for nothing: %s", where, expr)
	}
	for _, m := range names {
		f, suffix := got[m[1]], ""
		for _, end := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(m[1], end); ok && f == nil {
				f, suffix = got[base], end
			}
		}
		if f == nil || (suffix != "") != (f.kind == "histogram") {
			t.Errorf("%s asks for %s, which is not shown: %s", where, m[1], expr)
			continue
		}
		for label := range f.labels {
			known = append(known, label)
		}
		for _, l := range selected.FindAllStringSubmatch(m[2], -1) {
			if !f.labels[l[1]] && !slices.Contains(added, l[1]) {
				t.Errorf("%s asks for the label %s of %s", where, l[1], m[1])
			}
		}
		if f.kind == "counter" && !strings.Contains(expr, "rate(") && !strings.Contains(expr, "increase(") && !strings.Contains(expr, "grpc_server_started_total") {
			t.Errorf("%s shows the counter %s as it is", where, m[1])
		}
	}
	for _, g := range grouped.FindAllStringSubmatch(expr, -1) {
		for _, label := range strings.Split(g[1], ",") {
			if !slices.Contains(known, strings.TrimSpace(label)) {
				t.Errorf("%s groups by %s, which nothing in it has: %s", where, label, expr)
			}
		}
	}
	for _, f := range functionCall.FindAllStringSubmatch(expr, -1) {
		if !slices.Contains(functions, f[1]) {
			t.Errorf("%s calls %s: %s", where, f[1], expr)
		}
	}
}

// shipped checks the rules and the dashboard in deploy/ against what a member shows.
func shipped(t *testing.T, got map[string]*family) {
	t.Helper()
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	text, err := os.ReadFile("../deploy/alerts.yaml")
	if err == nil {
		err = yaml.UnmarshalStrict(text, &rules)
	}
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range rules.Groups[0].Rules {
		if r.Alert == "" || seen[r.Alert] || r.Labels["severity"] != "warning" && r.Labels["severity"] != "critical" ||
			r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%+v", r)
		}
		seen[r.Alert] = true
		checkExpression(t, r.Alert, r.Expr, got)
	}
	if len(seen) < 10 {
		t.Errorf("%d rules", len(seen))
	}
	type panel struct {
		Title   string
		Type    string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
	var board struct{ Panels []panel }
	if text, err = os.ReadFile("../deploy/dashboard.json"); err == nil {
		err = json.Unmarshal(text, &board)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			checkExpression(t, p.Title, strings.ReplaceAll(target.Expr, "$__rate_interval", "1m"), got)
		}
		for _, o := range board.Panels[:i] {
			if p.GridPos.X < o.GridPos.X+o.GridPos.W && o.GridPos.X < p.GridPos.X+p.GridPos.W &&
				p.GridPos.Y < o.GridPos.Y+o.GridPos.H && o.GridPos.Y < p.GridPos.Y+p.GridPos.H {
				t.Errorf("%s covers %s", p.Title, o.Title)
			}
		}
	}
	if len(board.Panels) < 20 {
		t.Errorf("%d panels", len(board.Panels))
	}
}
