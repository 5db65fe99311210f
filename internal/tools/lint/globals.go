package main

import (
	"go/ast"
	"go/token"
	"path"
	"strconv"
	"strings"
)

// A global is one package-level variable outside test files.
type global struct {
	f    *file
	id   *ast.Ident
	typ  ast.Expr // nil: from the value
	val  ast.Expr // nil: zero value
	dir  string
	bad  string // why it is state, "" if it is not
	line int
}

// checkGlobals: no package-level state. A package-level var may be an error sentinel,
// an interface assertion, or a table that nobody writes. What makes one state: it
// holds a lock, an atomic, a channel or a pool; or anything in the module assigns to
// it, takes its address, or deletes from it. The check is by name, without types: a
// local variable of the same name shadows it where the parser resolves that.
func checkGlobals(t *tree) {
	byDir := map[string]map[string]*global{}
	var all []*global
	for _, f := range t.files {
		if f.test || isTestSupport(f.dir) {
			continue
		}
		for _, d := range f.ast.Decls {
			gd, ok := d.(*ast.GenDecl)
			if !ok || gd.Tok != token.VAR {
				continue
			}
			for _, s := range gd.Specs {
				vs := s.(*ast.ValueSpec)
				for i, id := range vs.Names {
					if id.Name == "_" {
						continue
					}
					g := &global{f: f, id: id, typ: vs.Type, dir: f.dir, line: t.line(id.Pos())}
					if i < len(vs.Values) {
						g.val = vs.Values[i]
					}
					g.bad = stateful(g)
					if byDir[f.dir] == nil {
						byDir[f.dir] = map[string]*global{}
					}
					byDir[f.dir][id.Name] = g
					all = append(all, g)
				}
			}
		}
	}
	for _, f := range t.files {
		if !f.test {
			findWrites(t, f, byDir)
		}
	}
	for _, g := range all {
		if g.bad == "" || (g.f.ast.Name.Name == "main" && g.id.Name == "version") {
			continue // main.version is stamped by the linker
		}
		t.report(g.f.path, g.line, "globals", "package-level var %s is state (%s): hang it on the object that owns it", g.id.Name, g.bad)
	}
}

// stateful tells from the declaration alone.
func stateful(g *global) string {
	why := ""
	look := func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false // its body is looked at for writes
		case *ast.ChanType:
			why = "a channel"
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok {
				switch {
				case x.Name == "atomic" && ast.IsExported(n.Sel.Name), x.Name == "sync" && !strings.HasPrefix(n.Sel.Name, "OnceValue"):
					why = x.Name + "." + n.Sel.Name
				}
			}
		}
		return true
	}
	if g.typ != nil {
		ast.Inspect(g.typ, look)
	}
	if g.val != nil {
		ast.Inspect(g.val, look)
	}
	return why
}

func findWrites(t *tree, f *file, byDir map[string]map[string]*global) {
	// imported name -> directory in this module
	names := map[string]string{}
	for _, im := range f.ast.Imports {
		whole, err := strconv.Unquote(im.Path.Value)
		own, ok := strings.CutPrefix(whole, t.module+"/")
		if err != nil || !ok {
			continue
		}
		n := path.Base(own)
		if im.Name != nil {
			n = im.Name.Name
		}
		names[n] = own
	}
	// mark follows x[i], x.f, *x, (x), x[:] to the variable at its root.
	var mark func(e ast.Expr, how string)
	mark = func(e ast.Expr, how string) {
		switch e := e.(type) {
		case *ast.ParenExpr:
			mark(e.X, how)
		case *ast.IndexExpr:
			mark(e.X, how)
		case *ast.SliceExpr:
			mark(e.X, how)
		case *ast.StarExpr:
			mark(e.X, how)
		case *ast.SelectorExpr:
			if x, ok := e.X.(*ast.Ident); ok && x.Obj == nil {
				if own, ok := names[x.Name]; ok {
					if g := byDir[own][e.Sel.Name]; g != nil && g.bad == "" {
						g.bad = how + " at " + f.path + ":" + strconv.Itoa(t.line(e.Pos()))
					}
					return
				}
			}
			mark(e.X, how)
		case *ast.Ident:
			g := byDir[f.dir][e.Name]
			if g == nil || g.bad != "" {
				return
			}
			if e.Obj != nil && e.Obj != g.id.Obj {
				return // a local of that name
			}
			g.bad = how + " at " + f.path + ":" + strconv.Itoa(t.line(e.Pos()))
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, l := range n.Lhs {
					mark(l, "assigned")
				}
			}
		case *ast.IncDecStmt:
			mark(n.X, "changed")
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				mark(n.Key, "assigned")
				if n.Value != nil {
					mark(n.Value, "assigned")
				}
			}
		case *ast.UnaryExpr:
			// &table[i] is how a row is handed out without a copy: rows are
			// read-only by their documentation. &x alone gives x away.
			if n.Op == token.AND {
				if _, row := n.X.(*ast.IndexExpr); !row {
					mark(n.X, "address taken")
				}
			}
		case *ast.CallExpr:
			// unsafe.Pointer(&x) hands a constant to the kernel without a heap copy.
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Pointer" {
				return false
			}
			if fn, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 {
				switch fn.Name {
				case "delete", "clear", "copy":
					mark(n.Args[0], fn.Name+" called")
				}
			}
		}
		return true
	})
}

// checkExits: only a command ends the process; below cmd/ errors are returned.
func checkExits(t *tree) {
	for _, f := range t.files {
		if f.test || f.ast.Name.Name == "main" || isTestSupport(f.dir) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok || x.Obj != nil {
				return true
			}
			if (x.Name == "os" && sel.Sel.Name == "Exit") || (x.Name == "log" && (strings.HasPrefix(sel.Sel.Name, "Fatal") || strings.HasPrefix(sel.Sel.Name, "Panic"))) {
				t.report(f.path, t.line(sel.Pos()), "exits", "%s.%s outside a command: return the error", x.Name, sel.Sel.Name)
			}
			return true
		})
	}
}
