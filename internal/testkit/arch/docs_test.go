package arch

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// cited finds a file and the function that a page says is in it:
// `internal/host/step.go` `stepper.Turn`.
var cited = regexp.MustCompile("`([a-z0-9/_]+\\.go)` `([A-Za-z0-9_.]+)`")

// declared lists the functions of a file as Name and Receiver.Name.
func declared(file *ast.File) map[string]bool {
	names := map[string]bool{}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if f.Recv == nil {
			names[f.Name.Name] = true
			continue
		}
		t := f.Recv.List[0].Type
		if p, ok := t.(*ast.StarExpr); ok {
			t = p.X
		}
		if id, ok := t.(*ast.Ident); ok {
			names[id.Name+"."+f.Name.Name] = true
		}
	}
	return names
}

// TestThePutWalkIsTrue: whoever follows ARCHITECTURE.md finds what it promises.
func TestThePutWalkIsTrue(t *testing.T) {
	all, _ := load(t)
	files := map[string]map[string]bool{}
	for _, src := range all {
		files[src.path] = declared(src.file)
	}
	page, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := cited.FindAllStringSubmatch(string(page), -1)
	if len(found) < 8 {
		t.Errorf("ARCHITECTURE.md names only %d functions", len(found))
	}
	for _, m := range found {
		if !files[m[1]][m[2]] {
			t.Errorf("ARCHITECTURE.md says that %s has %s", m[1], m[2])
		}
	}
}

// TestEveryLinkLeadsSomewhere checks the relative links of all pages.
func TestEveryLinkLeadsSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	root := "../../.."
	var pages []string
	for _, pattern := range []string{"*.md", "docs/*/*.md"} {
		some, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, some...)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", strings.TrimPrefix(page, root+"/"), m[1])
			}
		}
	}
}
