// Package xentest plays xen-scsifront of Linux in tests of vscsiif's back ends: Front is
// its ring, Driver its part of xenbus. Both complain of what would have scsifront disable
// the host for good. Machine is what they run on, over the fakes of xenstore, event
// channels and grants.
package xentest
