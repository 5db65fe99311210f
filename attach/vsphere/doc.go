// Package vsphere attaches a target to ESXi hosts (vSphere Web Services API, 6.7 and
// later) through a vCenter server or at a host itself: software iSCSI is turned on, a
// send target added, with CHAP where the target wants it, the host's iSCSI name
// admitted to the target; a rescan finds the LUNs by their NAA names, which get a path
// policy, and at request a VMFS datastore or a raw device mapping in a virtual machine.
//
// It runs in the command, with its user's credentials. Each step looks whether its
// effect is there already; if not it is journalled with what takes it back (package
// attach) and done. There is one attachment for each host, target and LUN, so that hosts
// of a cluster fail and are resumed each by itself. What several attachments of a host
// stand on, such as its send target, stays until the last of them goes; what somebody
// else has set up is never taken away.
package vsphere
