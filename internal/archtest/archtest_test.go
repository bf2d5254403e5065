package archtest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "example.com/keytrail/"
)

// Bounds of style.md on the tail: long files and functions are where faults hide.
const (
	fileLinesMax = 600
	funcLinesMax = 60
)

// source is one Go file of the project that is not a test.
type source struct {
	pkg  string // Folder below the root: "internal/eventlog".
	path string
	file *ast.File
	set  *token.FileSet
	test bool
}

// sources parses every Go file of the project.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "testdata" || name == "bin" || name == "data") {
			return filepath.SkipDir
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); d.IsDir() && path != root && err == nil { // A module of its own.
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		all = append(all, source{pkg: filepath.ToSlash(rel), path: path, file: f, set: set, test: strings.HasSuffix(name, "_test.go")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found %d Go files: the walk does not see the project", len(all))
	}
	return all
}

func imports(t *testing.T, s source) []string {
	t.Helper()
	var list []string
	for _, spec := range s.file.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, imp)
	}
	return list
}

func TestEveryPackageImportsOnlyWhatTheTableAllows(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		seen[s.pkg] = true
		want, ok := allowed[s.pkg]
		if !ok {
			t.Errorf("%s: package %s is not in the import table: declare its place first", s.path, s.pkg)
			continue
		}
		for _, imp := range imports(t, s) {
			host, _, _ := strings.Cut(imp, "/")
			if strings.Contains(host, ".") && !matches(want, strings.TrimPrefix(imp, module)) {
				t.Errorf("%s: %s must not import %s", s.path, s.pkg, imp)
			}
		}
	}
	for pkg := range allowed {
		if !seen[pkg] {
			t.Errorf("the import table lists %s, which is gone", pkg)
		}
	}
}

// matches reports whether imp is in want; an entry that ends in "/..." allows all below.
func matches(want []string, imp string) bool {
	return slices.ContainsFunc(want, func(w string) bool {
		dir, ok := strings.CutSuffix(w, "/...")
		return w == imp || ok && (imp == dir || strings.HasPrefix(imp, dir+"/"))
	})
}

func TestEveryPackageSaysOnceWhatItIsFor(t *testing.T) {
	count := map[string]int{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		count[s.pkg] += 0
		if s.file.Doc != nil {
			count[s.pkg]++
		}
	}
	for pkg, n := range count {
		if n != 1 {
			t.Errorf("package %s has %d package comments, want one", pkg, n)
		}
	}
}

func TestFilesAndFunctionsStayShort(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		if n := s.set.Position(s.file.End()).Line; n > fileLinesMax {
			t.Errorf("%s has %d lines, want at most %d", s.path, n, fileLinesMax)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			if n := s.set.Position(f.End()).Line - s.set.Position(f.Pos()).Line + 1; n > funcLinesMax {
				t.Errorf("%s: %s has %d lines, want at most %d", s.path, f.Name.Name, n, funcLinesMax)
			}
		}
	}
}

func TestEveryExportedNameSaysItsContract(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.pkg == "cmd/keytrail" {
			continue
		}
		for _, d := range s.file.Decls {
			checkDoc(t, s, d)
		}
	}
}

func checkDoc(t *testing.T, s source, d ast.Decl) {
	t.Helper()
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
			t.Errorf("%s: %s has no comment", s.path, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil {
					t.Errorf("%s: %s has no comment", s.path, spec.Name.Name)
				}
			case *ast.ValueSpec:
				if spec.Names[0].IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
					t.Errorf("%s: %s has no comment", s.path, spec.Names[0].Name)
				}
			}
		}
	}
}

// exportedReceiver reports whether d is a function, or a method of an exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

func TestProductionNeverImportsTesting(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test && !strings.HasSuffix(s.pkg, "test") && slices.Contains(imports(t, s), "testing") {
			t.Errorf("%s imports testing", s.path)
		}
	}
}

// In the bubbles of testing/synctest time is a fake clock and Sleep drives it, so packages
// whose tests use them may.
func TestTestsDoNotSleep(t *testing.T) {
	all := sources(t)
	bubbles := map[string]bool{}
	for _, s := range all {
		if s.test && slices.Contains(imports(t, s), "testing/synctest") {
			bubbles[s.pkg] = true
		}
	}
	for _, s := range all {
		if !s.test || bubbles[s.pkg] {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Sleep" {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
				t.Errorf("%s: time.Sleep in a test: wait for the event, or drive a clock", s.set.Position(sel.Pos()))
			}
			return true
		})
	}
}

func TestNothingNamesARegistryOrAMachine(t *testing.T) {
	words := []string{"registry.npm" + "js", "proxy." + "golang", "deb." + "debian.org", "/wor" + "k/", "/tm" + "p/studio"}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || d.Name() == "bin" || d.Name() == "data") && path != root {
			return filepath.SkipDir
		}
		if d.IsDir() || d.Name() == ".git" { // In a linked worktree it is a file.
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, w := range words {
			if strings.Contains(string(b), w) {
				t.Errorf("%s names %s", path, w)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
