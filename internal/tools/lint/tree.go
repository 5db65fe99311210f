package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// A Finding is one broken rule at one place.
type Finding struct {
	Path string // relative to the root, with slashes
	Line int    // 0: the whole file or folder
	Rule string
	Text string
}

func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s: %s", f.Path, f.Rule, f.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", f.Path, f.Line, f.Rule, f.Text)
}

// A file is one Go source file.
type file struct {
	path string // relative to the root
	dir  string // path of the package below the root; "." for the root
	test bool   // *_test.go
	src  []byte
	ast  *ast.File
}

// A tree is a module's sources, parsed.
type tree struct {
	root   string
	module string
	fset   *token.FileSet
	files  []*file
	text   []string // every other committed text file worth reading, relative
	found  []Finding
}

func (t *tree) report(p string, line int, rule, format string, args ...any) {
	t.found = append(t.found, Finding{p, line, rule, fmt.Sprintf(format, args...)})
}

func (t *tree) line(p token.Pos) int { return t.fset.Position(p).Line }

// Check reads the module at root and returns what breaks a rule, sorted by place.
func Check(root string) ([]Finding, error) {
	t, err := load(root)
	if err != nil {
		return nil, err
	}
	checkFloors(t)
	checkUnsafe(t)
	checkDocs(t)
	checkFormat(t)
	checkGlobals(t)
	checkExits(t)
	checkLeftovers(t)
	sort.SliceStable(t.found, func(i, j int) bool {
		a, b := t.found[i], t.found[j]
		if a.Path != b.Path {
			return a.Path < b.Path
		}
		return a.Line < b.Line
	})
	return t.found, nil
}

func load(root string) (*tree, error) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	t := &tree{root: root, fset: token.NewFileSet()}
	for _, l := range strings.Split(string(mod), "\n") {
		if m, ok := strings.CutPrefix(l, "module "); ok {
			t.module = strings.TrimSpace(m)
		}
	}
	if t.module == "" {
		return nil, errors.New("go.mod names no module")
	}
	err = filepath.WalkDir(root, t.visit)
	return t, err
}

func (t *tree) visit(p string, d fs.DirEntry, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil // an editor's temporary file, gone again
	}
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(t.root, p)
	if err != nil {
		return err
	}
	rel = filepath.ToSlash(rel)
	name := d.Name()
	if d.IsDir() {
		switch {
		case rel == ".", rel == ".ci", rel == ".github":
			return nil
		case strings.HasPrefix(name, "."), name == "testdata", name == "bin":
			return fs.SkipDir // hidden, fixtures, built
		}
		return nil
	}
	if !d.Type().IsRegular() {
		return nil
	}
	if !strings.HasSuffix(name, ".go") {
		switch path.Ext(name) {
		case "", ".md", ".sh", ".txt", ".yaml", ".yml", ".json", ".service", ".mod", ".1", ".5", ".8":
			t.text = append(t.text, rel)
		}
		return nil
	}
	src, err := os.ReadFile(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f := &file{path: rel, dir: path.Dir(rel), test: strings.HasSuffix(name, "_test.go"), src: src}
	f.ast, err = parser.ParseFile(t.fset, rel, bytes.NewReader(src), parser.ParseComments)
	if err != nil {
		return err
	}
	t.files = append(t.files, f)
	return nil
}

// imports calls visit for each import of f: its path below the module ("" if it is
// not of this module) and its whole path.
func (t *tree) imports(f *file, visit func(own, whole string, line int)) {
	for _, im := range f.ast.Imports {
		whole, err := strconv.Unquote(im.Path.Value)
		if err != nil {
			continue
		}
		own := ""
		if rest, ok := strings.CutPrefix(whole, t.module+"/"); ok {
			own = rest
		}
		visit(own, whole, t.line(im.Pos()))
	}
}
