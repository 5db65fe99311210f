// Command gotest runs go test with its arguments and says last, and briefly, what
// failed: of a long log that continuous integration cuts down to its end, that is
// what has to be left. Everything else it prints as go test does.
package main
