// Package hosttest is what tests take from the machine they run on without depending
// on how it is set up or on what else runs there: TCP ports that stay theirs,
// folders with the rights that a test needs, processes that have stopped when it goes on
// (ip(7), umask(2), getrlimit(2), signal(7)).
package hosttest
