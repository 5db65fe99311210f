// Package iscsi is vtgt's iSCSI front end (RFC 7143, ErrorRecoveryLevel 0): portals,
// login, sessions and the full feature phase on top of package scsi.
//
// Login and discovery run on an ordinary goroutine over a [net.Conn]. A connection
// that reaches full feature phase moves, with the bytes that were already read, to
// one of the event loops, and lives there until it ends: everything below [Server]
// in the data path is touched by that loop alone and takes no lock. All connections
// of one session share one loop: a further connection joins the loop of the leading
// one (member.go), so that the one order of commands needs no lock either.
//
// The life of a command: its header is parsed in place in the receive buffer
// (rx.go); a request from the loop's pool takes it (command.go); CmdSN order decides
// when it is delivered (session.go); data that the initiator still owes are awaited
// or asked for (dataout.go); [scsi.Lane.Submit] runs it; its answer is queued and
// made into PDUs when there is room in the socket (tx.go, respond.go), all answers
// of a round in one system call.
package iscsi
