// Package daemon is the running object graph of vtgt: stores, units, targets, portals
// and the state folder, built from a configuration and changed by applying another
// (the declarative state of package config; SCSI by package scsi, RFC 7143 by package
// iscsi).
//
// There is one writer at a time ([Daemon.Apply]) and any number of readers, which
// never wait for it: they see the last graph that was published whole. Whatever can
// fail is done before the first visible change, so a configuration is applied as a
// whole or not at all.
//
// There is no package-level state: everything hangs on a [Daemon].
package daemon
