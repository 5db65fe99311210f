// Package peer starts an iSCSI target privately, for the conformance runner and the
// benchmark: vtgt itself, or tgtd beside which it is measured.
//
// A Server is one process that this package started, on 127.0.0.1 and a free port,
// with its files in a folder of the caller. Each disk is the only one of a target of
// its own, so that tests which reset a target disturb no other disk.
package peer
