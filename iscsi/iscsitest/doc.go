// Package iscsitest is a small iSCSI initiator for tests (RFC 7143): it logs in with
// any keys, runs commands, task management, text and logout, judges what the target
// answers, and can break every rule that a hostile initiator would ([Hostile]).
//
// It is written for tests, not for speed: one goroutine uses a [Conn] at a time, and
// every operation has a deadline. What it finds wrong with the target's PDUs
// (sequence numbers, lengths, offsets, flags) is an error that wraps [ErrTarget].
package iscsitest
