package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	module = "github.com/kvorum/kvorum/"
	root   = "../../.."
)

// source is one parsed file of the module.
type source struct {
	pkg, path string // both relative to the module's root
	test      bool
	file      *ast.File
	lines     int
}

// tree is what all tests look at, parsed once.
type tree struct {
	all  []source
	fset *token.FileSet
}

var parsed = sync.OnceValues(parse)

func load(t *testing.T) ([]source, *token.FileSet) {
	t.Helper()
	tree, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.all) < 10 {
		t.Fatalf("found only %d files: the test looks in the wrong place", len(tree.all))
	}
	return tree.all, tree.fset
}

func parse() (tree, error) {
	fset := token.NewFileSet()
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != "." && d.Name() != ".." || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		file, err := parser.ParseFile(fset, rel, text, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{
			pkg: filepath.ToSlash(filepath.Dir(rel)), path: filepath.ToSlash(rel),
			test: strings.HasSuffix(rel, "_test.go"), file: file, lines: strings.Count(string(text), "\n"),
		})
		return nil
	})
	return tree{all, fset}, err
}

// floorOf returns the line of each package in the policy, lowest first.
func floorOf() map[string]int {
	floor := map[string]int{}
	for i, line := range strings.Split(floors, "\n") {
		for _, pkg := range strings.Fields(line) {
			floor[pkg] = i
		}
	}
	return floor
}

func isTestkit(pkg string) bool { return strings.HasPrefix(pkg, "internal/testkit/") }

// importFault says what is wrong with one import, or nothing.
func importFault(floor map[string]int, from source, to string) string {
	mine, known := floor[from.pkg]
	theirs, knownTo := floor[to]
	switch {
	case !known:
		return from.pkg + " is on no floor: add it to policy_test.go"
	case !knownTo:
		return to + " is on no floor: add it to policy_test.go"
	case from.test:
		return "" // tests may look around; the compiler forbids cycles
	case isTestkit(to) && !isTestkit(from.pkg) && from.pkg != "internal/sim":
		return "product code must not import the test kit"
	case theirs >= mine:
		return fmt.Sprintf("%s (floor %d) must not import %s (floor %d)", from.pkg, mine, to, theirs)
	}
	for _, n := range never {
		if n.who == from.pkg && n.what == to {
			return fmt.Sprintf("%s must not import %s: %s", n.who, n.what, n.because)
		}
	}
	if slices.Contains(bodies, to) && !slices.ContainsFunc(assemblers, func(a string) bool { return strings.HasPrefix(from.pkg, a) }) {
		return fmt.Sprintf("%s must not import %s: only the assemblers choose bodies", from.pkg, to)
	}
	return ""
}

func TestImportsPointDown(t *testing.T) {
	all, fset := load(t)
	floor := floorOf()
	for _, src := range all {
		for _, imp := range src.file.Imports {
			path, _ := strconv.Unquote(imp.Path.Value)
			if strings.Contains(path, "go.etcd.io/etcd/server") || strings.Contains(path, "go.etcd.io/raft") {
				t.Errorf("%s: etcd's server and raft are not ours to use", fset.Position(imp.Pos()))
			}
			to, ours := strings.CutPrefix(path, module)
			if !ours {
				continue
			}
			if fault := importFault(floor, src, to); fault != "" {
				t.Errorf("%s: %s", fset.Position(imp.Pos()), fault)
			}
		}
	}
}

func isWorldly(src source) bool {
	for _, w := range worldly {
		if src.pkg == w || src.path == w || strings.HasSuffix(w, "/") && strings.HasPrefix(src.path, w) {
			return true
		}
	}
	return false
}

// TestOutsideWorldStaysOutside is rule 31.
func TestOutsideWorldStaysOutside(t *testing.T) {
	all, fset := load(t)
	for _, src := range all {
		if src.test || isWorldly(src) {
			continue
		}
		for _, imp := range src.file.Imports {
			path, _ := strconv.Unquote(imp.Path.Value)
			if slices.Contains(outsideImports, path) && !slices.Contains(seeded[src.pkg], path) {
				t.Errorf("%s: %s imports %s below the line of rule 31", fset.Position(imp.Pos()), src.pkg, path)
			}
		}
		ast.Inspect(src.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				if !slices.Contains(seeded[src.pkg], "go statement") {
					t.Errorf("%s: a go statement below the line of rule 31", fset.Position(n.Pos()))
				}
			case *ast.SelectorExpr:
				if pkg, ok := n.X.(*ast.Ident); ok && pkg.Obj == nil && slices.Contains(outsideCalls[pkg.Name], n.Sel.Name) && !slices.Contains(seeded[src.pkg], pkg.Name) {
					t.Errorf("%s: %s.%s below the line of rule 31", fset.Position(n.Pos()), pkg.Name, n.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	all, _ := load(t)
	said, seen := map[string]bool{}, map[string]bool{}
	for _, src := range all {
		if src.test {
			continue
		}
		seen[src.pkg] = true
		if src.file.Doc != nil && len(src.file.Doc.Text()) > 40 {
			said[src.pkg] = true
		}
	}
	for pkg := range seen {
		if !said[pkg] {
			t.Errorf("%s has no package comment", pkg)
		}
		base := filepath.Base(pkg)
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "manager", "misc"}, base) {
			t.Errorf("%s: the name says nothing", pkg)
		}
	}
}

func TestSizesStayReadable(t *testing.T) {
	all, fset := load(t)
	for _, src := range all {
		if src.lines > maxFileLines {
			t.Errorf("%s has %d lines, more than %d: split it by activity", src.path, src.lines, maxFileLines)
		}
		if src.test {
			continue
		}
		ast.Inspect(src.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				lines := fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1
				if name := src.pkg + "." + n.Name.Name; lines > maxFunctionLines && longFunctions[name] == "" {
					t.Errorf("%s: %s has %d lines, more than %d", fset.Position(n.Pos()), name, lines, maxFunctionLines)
				}
			case *ast.TypeSpec:
				i, ok := n.Type.(*ast.InterfaceType)
				if name := src.pkg + "." + n.Name.Name; ok && i.Methods.NumFields() > maxMethods && wideInterfaces[name] == "" {
					t.Errorf("%s: interface %s has %d methods, more than %d", fset.Position(n.Pos()), name, i.Methods.NumFields(), maxMethods)
				}
			}
			return true
		})
	}
}

// TestFloorsAreReal fails when the policy names a package that nobody wrote
// within a floor of it, so that the table never becomes fiction.
func TestFloorsAreReal(t *testing.T) {
	all, _ := load(t)
	have := map[string]bool{}
	for _, src := range all {
		have[src.pkg] = true
	}
	for pkg := range floorOf() {
		if !have[pkg] {
			t.Errorf("policy names %s, which does not exist", pkg)
		}
	}
}
