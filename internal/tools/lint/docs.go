package main

import (
	"bytes"
	"go/format"
	"path"
	"sort"
	"strings"
)

// checkDocs: every package has a doc.go whose comment starts "Package NAME" (a
// command's: "Command NAME"), and says it nowhere else.
func checkDocs(t *tree) {
	type pkg struct{ name, doc, file string }
	pkgs := map[string]*pkg{}
	for _, f := range t.files {
		if f.test {
			continue
		}
		p := pkgs[f.dir]
		if p == nil {
			p = &pkg{name: f.ast.Name.Name, file: f.path}
			pkgs[f.dir] = p
		}
		if path.Base(f.path) == "doc.go" {
			p.doc, p.file = f.ast.Doc.Text(), f.path
			if p.doc == "" {
				p.doc = "\n"
			}
		} else if f.ast.Doc != nil && strings.TrimSpace(f.ast.Doc.Text()) != "" {
			t.report(f.path, t.line(f.ast.Doc.Pos()), "doc", "the package comment belongs in doc.go (leave a blank line before the package clause)")
		}
	}
	dirs := make([]string, 0, len(pkgs))
	for d := range pkgs {
		dirs = append(dirs, d)
	}
	sort.Strings(dirs)
	for _, d := range dirs {
		p := pkgs[d]
		want := "Package " + p.name + " "
		if p.name == "main" {
			want = "Command " + path.Base(d) + " "
		}
		switch {
		case p.doc == "":
			t.report(d, 0, "doc", "package %s has no doc.go", p.name)
		case !strings.HasPrefix(strings.ReplaceAll(p.doc, "\n", " "), want):
			t.report(p.file, 0, "doc", "the package comment must start %q", want)
		}
	}
}

// checkFormat: gofmt.
func checkFormat(t *tree) {
	for _, f := range t.files {
		out, err := format.Source(f.src)
		if err == nil && !bytes.Equal(out, f.src) {
			t.report(f.path, 0, "gofmt", "not formatted: run gofmt -w %s", f.path)
		}
	}
}
