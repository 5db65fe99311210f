// Package hosttest is what tests take from the machine they run on without depending
// on how it is set up or on what else runs there: TCP ports that stay theirs, and
// folders with the rights that a test needs (ip(7), umask(2), getrlimit(2)).
package hosttest
