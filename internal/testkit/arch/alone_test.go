package arch

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What scripts/test keeps from the race detector: whole packages, and packages but for
// some of their tests.
var (
	aloneList    = regexp.MustCompile(`(?m)^alone='([^']*)'`)
	mostlyList   = regexp.MustCompile(`(?m)^mostly='([^']*)'`)
	togetherList = regexp.MustCompile(`(?m)^together='([^']*)'`)
)

// quiet are the packages of others that start no goroutine for what calls them. Those
// of the standard library are quiet but for loudStandard.
var quiet = []string{
	"github.com/cockroachdb/pebble/v2/vfs", "github.com/golang-jwt/jwt/v5", "golang.org/x/crypto/bcrypt", "sigs.k8s.io/yaml",
	"go.etcd.io/etcd/api/v3/mvccpb", "go.etcd.io/etcd/api/v3/etcdserverpb", "google.golang.org/protobuf/encoding/protowire", "google.golang.org/protobuf/proto", "pgregory.net/rapid",
}

var loudStandard = []string{"net/http", "os/exec", "unsafe"}

// loudCalls start a goroutine by other means than a go statement.
var loudCalls = []string{"AfterFunc", "Go", "Parallel"}

// TestWhatIsAloneHasNoGoroutines: what is told once, and not again under the race
// detector, has nothing that runs beside it, in no file of the package and of none that
// it imports. Programs that are built for the race detector have the dear checks of
// internal/invariant, too, and check their pointers: what is alone has no such checks,
// or is told again with them, and nothing that is unsafe.
func TestWhatIsAloneHasNoGoroutines(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(root, "scripts", "test"))
	if err != nil {
		t.Fatal(err)
	}
	words := func(list *regexp.Regexp) []string {
		found := list.FindSubmatch(script)
		if found == nil {
			t.Fatalf("scripts/test has nothing like %v", list)
		}
		return strings.Fields(string(found[1]))
	}
	all, _ := load(t)
	files := map[string][]source{}
	for _, src := range all {
		if !strings.HasSuffix(src.path, "_bench_test.go") { // no test runs them
			files[src.pkg] = append(files[src.pkg], src)
		}
	}
	together := words(togetherList)
	for _, pkg := range words(aloneList) {
		for _, src := range check(t, files, pkg, nil) {
			if isDear(src) {
				t.Errorf("%s is not alone: %s has dear checks", pkg, src.path)
			}
		}
	}
	for _, pkg := range words(mostlyList) {
		check(t, files, pkg, together)
		if !strings.Contains(string(script), "-tags invariants ./internal/sim ./"+pkg+"\n") {
			t.Errorf("%s is not told with its dear checks", pkg)
		}
	}
}

// check looks at a package with its tests, but for some of these, and at all that they
// import, and returns these files.
func check(t *testing.T, files map[string][]source, pkg string, but []string) (reached []source) {
	t.Helper()
	if len(files[pkg]) == 0 {
		t.Errorf("scripts/test names %s, which does not exist", pkg)
	}
	seen, waiting := map[string]bool{pkg: true}, []string{pkg}
	for len(waiting) > 0 {
		next := waiting[0]
		waiting = waiting[1:]
		for _, src := range files[next] {
			if src.test && next != pkg {
				continue
			}
			reached = append(reached, src)
			if fault := loudness(src, but); fault != "" {
				t.Errorf("%s is not alone: %s %s", pkg, src.path, fault)
			}
			for _, imp := range src.file.Imports {
				path, _ := strconv.Unquote(imp.Path.Value)
				if to, ours := strings.CutPrefix(path, module); ours && !seen[to] {
					seen[to] = true
					waiting = append(waiting, to)
				}
			}
		}
	}
	return reached
}

// isDear says whether a file asks for invariant.Dear.
func isDear(src source) (dear bool) {
	ast.Inspect(src.file, func(n ast.Node) bool {
		name, ok := n.(*ast.SelectorExpr)
		dear = dear || ok && name.Sel.Name == "Dear"
		return !dear
	})
	return dear
}

// loudness says what in a file may start a goroutine, or nothing; some functions may.
func loudness(src source, but []string) (fault string) {
	for _, imp := range src.file.Imports {
		path, _ := strconv.Unquote(imp.Path.Value)
		standard := !strings.Contains(strings.SplitN(path, "/", 2)[0], ".")
		if strings.HasPrefix(path, module) || standard && !slices.Contains(loudStandard, path) || slices.Contains(quiet, path) {
			continue
		}
		return "imports " + path
	}
	ast.Inspect(src.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			return !src.test || !slices.Contains(but, n.Name.Name)
		case *ast.GoStmt:
			fault = "has a go statement"
		case *ast.CallExpr:
			if call, ok := n.Fun.(*ast.SelectorExpr); ok && slices.Contains(loudCalls, call.Sel.Name) {
				fault = fmt.Sprintf("calls %s", call.Sel.Name)
			}
		}
		return fault == ""
	})
	return fault
}
