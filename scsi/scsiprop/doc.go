// Package scsiprop checks the SBC-3 disk of package scsi as a whole: random commands of
// all kinds at once, over several nexuses and loops, with aborts, resets and errors of
// the store, and of every block a history that must be linearizable. All of it is
// tests: how commands look and what they mean is written down here a second time.
package scsiprop
