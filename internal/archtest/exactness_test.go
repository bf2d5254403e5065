package archtest_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryTestThatTheArgumentNamesExists reads docs/exactness.md: a claim there is held
// by the test that it names.
func TestEveryTestThatTheArgumentNamesExists(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "exactness.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllSubmatch(text, -1)
	if len(named) < 40 {
		t.Errorf("the argument names %d tests, want at least 40", len(named))
	}
	defined := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git") {
			return errorsOrSkip(err)
		}
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		code, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range function.FindAllSubmatch(code, -1) {
			defined[string(m[1])] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range named {
		if name := string(m[1]); !defined[name] {
			t.Errorf("docs/exactness.md names %s, which does not exist", name)
		}
	}
}

// errorsOrSkip skips a folder unless the walk itself failed.
func errorsOrSkip(err error) error {
	if err != nil {
		return err
	}
	return fs.SkipDir
}
