// Package loop is vtgt's reactor: a few OS-thread-locked event loops that every
// front end and every store shares (epoll, eventfd and, for direct I/O, one
// io_uring per loop).
//
// A loop runs rounds. A round waits for events, reads the clock once, serves
// every ready [Source], then the mailbox ([Loop.Post]), then expired timers
// ([Loop.After]), and last the deferred nodes ([Loop.Defer]) that flush what the
// round has gathered: one kick, one publication, one notification for all of it.
// Code that runs on a loop must not block; what may sleep goes to [Workers].
package loop
