// Package unixsock makes the UNIX sockets that vtgt listens on: bound under a name that
// nobody knows, given to their owner, and only then moved to where they belong, so that
// nobody connects before who may. What is there already is replaced only where it is a
// socket that nobody listens on.
package unixsock
