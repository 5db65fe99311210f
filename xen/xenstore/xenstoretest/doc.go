// Package xenstoretest is an in-memory xenstored (docs/misc/xenstore.txt of Xen 4.17)
// for tests: nodes, permissions, watches, transactions with conflicts, and faults on
// demand.
package xenstoretest
