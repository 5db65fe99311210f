// Package hosttest is what tests take from the machine they run on without depending
// on how it is set up or on what else runs there: TCP ports that stay theirs, and
// folders that other users may enter (ip(7), umask(2)).
package hosttest
