// Package guesttest holds the tests that run vtgt with real guests and real crashes: a
// Linux initiator (open-iscsi) against vtgt on this host, vtgt inside a guest that loses
// power, and vtgt killed with SIGKILL.
//
// TestSG3 has the programs of sg3-utils ask about disks, and compares with testdata/sg3,
// which is written from the standards.
//
// Those that boot a guest do so only when VTGT_GUEST is set, as `make test-guest` sets
// it; then nothing is skipped for what is missing on the host: that is a failure.
// VTGT_POWER_ROUNDS and VTGT_KILL_ROUNDS are the numbers of crashes, VTGT_SEED makes the
// random moments those of an earlier run.
package guesttest
