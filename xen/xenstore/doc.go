// Package xenstore is a client of xenstored (docs/misc/xenstore.txt of Xen 4.17), over
// the kernel's /dev/xen/xenbus or xenstored's UNIX socket.
//
// A Conn may be used by any goroutine; requests of several are under way at once, each
// waits for its own answer. Watches bring their events to Conn.Next.
package xenstore
