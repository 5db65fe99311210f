// Command lint checks the rules of the house that no compiler checks: the floors
// between packages, where unsafe and raw system calls may be, package documentation,
// formatting, package-level state, leftovers.
//
//	go run ./internal/tools/lint [ROOT]
//
// It prints one line per finding (file:line: rule: what and what to do) and exits 1
// when there is any. The rules are syntactic: every Go file is read, whatever its
// build tags, so that a file for another architecture obeys them too; `go list` would
// show only the files of this one. Each rule is a function over the parsed tree
// and is shown to fail on testdata/bad.
package main
