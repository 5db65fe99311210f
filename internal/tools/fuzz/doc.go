// Command fuzz runs every native fuzz target of the given packages, one after the
// other (the go command fuzzes one target a run), each for the same time.
//
//	go run ./internal/tools/fuzz [-time 3s] [-run REGEXP] ./...
//
// A finding leaves its input under the package's testdata/fuzz, where go test picks
// it up from then on. The exit code is 1 when a target failed or none was found.
package main
