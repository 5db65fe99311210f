// Command conformance runs libiscsi's test suite, iscsi-test-cu, against vtgt or a
// peer and says for every test whether it passed, failed or was skipped, and why.
//
//	go run ./internal/tools/conformance [-peer tgtd] [-families GLOB,…] [-configs A,B,C,D,E] [-jobs N] [-v]
//
// Each test is a process of its own, because a whole run can hang in the client, and
// gets its destructive parts (-d -S). The program's exit code and its XML count a
// skipped test as a success: what it prints is parsed instead.
//
// Some tests need a certain kind of disk, so they run over several configurations of
// one. For vtgt the run fails when a test fails or hangs anywhere, or passes
// nowhere, unless the list in expect.go names it with its reason. A peer is
// measured, not judged: its run fails only when the harness does (or with -strict).
package main
