// Package evtchntest is event channels (of Xen) in one process, for tests: the other
// domain's ends, and a Binder to them.
package evtchntest
